// Thousands of points on a canvas: hover or walk with the arrow keys to see a point's image, click or press Enter to
// choose it. Images are sent by Python one at a time, when a point is hovered.
const W = 620, H = 460, MARGIN = 14, REACH = 14;          // pixels; a point is hit from REACH away
const DIRECTIONS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

// The page's background is dark: points and marks need light outlines there.
function isDark(el) {
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = getComputedStyle(el).getPropertyValue("--jp-layout-color0").trim() || "white";
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(probe.fillStyle.slice(i, i + 2), 16));
  return 0.3 * red + 0.59 * green + 0.11 * blue < 128;
}

function outline(g, shape, x, y, r) {
  g.beginPath();                                          // the path of one point
  if (shape === 0) g.arc(x, y, r, 0, 2 * Math.PI);
  else if (shape === 1) g.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
  else {
    g.moveTo(x, y - 1.2 * r);
    g.lineTo(x + 1.1 * r, y + 0.8 * r);
    g.lineTo(x - 1.1 * r, y + 0.8 * r);
    g.closePath();
  }
}

function render({ model, el }) {
  const add = (parent, tag, className, text = "") => {
    const child = parent.appendChild(document.createElement(tag));
    child.className = className;
    child.textContent = text;                             // text, never HTML
    return child;
  };
  const [ink, paper] = isDark(el) ? ["white", "#1c1f24"] : ["black", "white"];
  const box = add(el, "div", "apse-map"), canvas = add(box, "canvas", ""), card = add(box, "div", "apse-card");
  const img = add(card, "img", ""), words = add(card, "div", ""), spoken = add(box, "div", "apse-spoken");
  const bar = add(el, "div", "apse-bar");
  const ratio = Math.min(2, 1.25 * (window.devicePixelRatio || 1));           // the page may show it larger than W
  const layer = document.createElement("canvas");         // the points, drawn once for each view
  for (const c of [canvas, layer]) {
    c.width = W * ratio;
    c.height = H * ratio;
    c.getContext("2d").scale(ratio, ratio);
  }
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application"); // arrow keys are ours while it has the focus,
  canvas.dataset.lmSuppressShortcuts = "true"; // in JupyterLab too
  spoken.setAttribute("role", "status");
  img.width = 112;
  let places, classes, stamps, view = { zoom: 1, x: 0, y: 0 }, current = -1, timer = 0, frame = 0, drag = null;
  const images = new Map();                               // point -> { src, alt, caption }, as far as they were sent

  const at = (i) => [
    W / 2 + (places[2 * i] - view.x) * (H - 2 * MARGIN) * view.zoom,
    H / 2 - (places[2 * i + 1] - view.y) * (H - 2 * MARGIN) * view.zoom,
  ];
  const best = (score) => {
    let found = -1, lowest = Infinity;                    // the point with the lowest score, or -1
    for (let i = 0; i < classes.length; i++) {
      const s = score(...at(i), i);
      if (s < lowest) {
        lowest = s;
        found = i;
      }
    }
    return found;
  };

  function drawPoints() {
    const began = performance.now(), g = layer.getContext("2d");
    g.fillStyle = paper;
    g.fillRect(0, 0, W, H);
    for (let i = 0; i < classes.length; i++) {
      const [x, y] = at(i);
      if (x > -8 && y > -8 && x < W + 8 && y < H + 8) g.drawImage(stamps[classes[i]], x - 8, y - 8, 16, 16);
    }
    drawMarks();
    canvas.dataset.milliseconds = (performance.now() - began).toFixed(1);
  }

  // query, results and the current point, over the points
  function drawMarks() {
    const g = canvas.getContext("2d"), q = model.get("query");
    g.drawImage(layer, 0, 0, W, H);
    const ring = (i, r) => {
      const [x, y] = at(i);
      for (const [w, c] of [[5, paper], [2.2, ink]]) {
        g.lineWidth = w;
        g.strokeStyle = c;
        outline(g, 0, x, y, r);
        g.stroke();
      }
    };
    for (const i of model.get("results")) ring(i, 8);
    if (q >= 0 && q < classes.length) {
      const [x, y] = at(q);
      ring(q, 9);
      for (const [w, c] of [[5, paper], [2.4, ink]])
        for (const [dx, dy] of Object.values(DIRECTIONS)) {
          g.lineWidth = w;
          g.strokeStyle = c;
          g.beginPath();
          g.moveTo(x + 7 * dx, y + 7 * dy);
          g.lineTo(x + 18 * dx, y + 18 * dy);
          g.stroke();
        }
    }
    if (current >= 0) ring(current, 5);
    Object.assign(canvas.dataset, { query: q, results: model.get("results").join(" ") });   // for tests of the page
  }

  // Make i the current point (-1: none); its image may have to be asked for.
  function show(i) {
    if (i !== current) {
      current = i;
      canvas.dataset.current = i;
      requestAnimationFrame(drawMarks);
    }
    const known = images.get(i);
    card.hidden = !known;
    clearTimeout(timer);
    if (i < 0) return;
    if (!known) {
      timer = setTimeout(() => model.send({ hover: i }), 25);   // a pointer that rushes past asks for nothing
      return;
    }
    const scale = canvas.clientWidth / W, [x, y] = at(i).map((v) => v * scale);
    img.src = known.src;
    img.alt = known.alt;
    words.textContent = known.caption.join("\n");
    if (spoken.textContent !== known.alt) spoken.textContent = known.alt;
    card.style.left = (x < canvas.clientWidth / 2 ? x + 16 : x - 16 - card.offsetWidth) + "px";
    card.style.top = Math.max(0, Math.min(H * scale - card.offsetHeight, y - 40)) + "px";
  }

  // Change the view; many changes before the next frame cost one drawing.
  function look(zoom, x, y) {
    view = { zoom: Math.max(1, Math.min(40, zoom)), x, y };
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      drawPoints();
      show(current);
    });
  }
  // Around the current point, or the query, or the middle.
  function zoomBy(factor) {
    const i = current >= 0 ? current : model.get("query");
    if (factor) look(view.zoom * factor, ...(i >= 0 ? [places[2 * i], places[2 * i + 1]] : [view.x, view.y]));
    else look(1, 0, 0);
  }
  const buttons = [["+", "zoom in", 1.6], ["−", "zoom out", 1 / 1.6], ["all", "show all points", 0]];
  for (const [text, name, factor] of buttons) {
    const button = add(bar, "button", "", text);
    button.type = "button";
    button.ariaLabel = name;
    button.onclick = () => zoomBy(factor);
  }
  const legend = add(bar, "span", "apse-legend");

  const pointer = (e) => {
    const r = canvas.getBoundingClientRect();
    return [((e.clientX - r.left) * W) / r.width, ((e.clientY - r.top) * H) / r.height];
  };
  const under = (e) => {
    const [x, y] = pointer(e), i = best((px, py) => (px - x) ** 2 + (py - y) ** 2);
    return i >= 0 && Math.hypot(at(i)[0] - x, at(i)[1] - y) <= REACH ? i : -1;
  };
  canvas.onpointerdown = (e) => {
    drag = { from: pointer(e), view: { ...view }, moved: false };
  };
  canvas.onpointermove = (e) => {
    if (!drag || !e.buttons) {
      drag = null;
      return show(under(e));
    }
    const [x, y] = pointer(e), scale = (H - 2 * MARGIN) * view.zoom, dx = x - drag.from[0], dy = y - drag.from[1];
    if (Math.hypot(dx, dy) > 4) drag.moved = true;
    if (drag.moved) look(view.zoom, drag.view.x - dx / scale, drag.view.y + dy / scale);
  };
  canvas.onclick = (e) => {
    const i = drag && drag.moved ? -1 : under(e);
    drag = null;
    if (i >= 0) {
      show(i);
      model.send({ choose: i });
    }
  };
  canvas.onpointerleave = () => show(-1);
  canvas.onblur = () => show(-1);
  const wheel = (e) => {
    if (document.activeElement !== canvas) return;        // a page should scroll past a map without focus
    e.preventDefault();
    zoomBy(e.deltaY < 0 ? 1.2 : 1 / 1.2);
  };
  canvas.addEventListener("wheel", wheel, { passive: false });
  canvas.onkeydown = (e) => {
    const here = current >= 0 ? current : Math.max(0, model.get("query")), go = DIRECTIONS[e.key];
    if (go && current < 0) show(here);
    else if (go) {
      const [x, y] = at(here);                            // the nearest point within 45 degrees of the arrow
      const next = best((px, py, i) => {
        const along = (px - x) * go[0] + (py - y) * go[1];
        const aside = Math.abs((px - x) * go[1]) + Math.abs((py - y) * go[0]);
        return i !== here && along > 0 && aside <= along ? along * along + aside * aside : Infinity;
      });
      if (next >= 0) {
        const [nx, ny] = at(next);
        show(next);
        if (nx < 0 || ny < 0 || nx > W || ny > H) zoomBy(1);
      }
    } else if ((e.key === "Enter" || e.key === " ") && current >= 0) model.send({ choose: current });
    else if (e.key === "+") zoomBy(1.6);
    else if (e.key === "-") zoomBy(1 / 1.6);
    else if (e.key === "0") zoomBy(0);
    else if (e.key === "Escape") show(-1);
    else return;
    e.preventDefault();
  };

  const answer = (message) => {
    if (message.image === undefined) return;              // Python has sent an image
    if (images.size > 500) images.delete(images.keys().next().value);
    images.set(message.image, message);
    if (message.image === current) show(current);
  };
  const bytes = (name) => {
    const v = model.get(name);
    return v.buffer.slice(v.byteOffset, v.byteOffset + v.byteLength);
  };
  const load = () => {
    places = new Float32Array(bytes("places"));
    classes = new Uint8Array(bytes("classes"));
    canvas.setAttribute("aria-label", model.get("label"));
    legend.replaceChildren();
    stamps = model.get("looks").map((look) => {
      // each kind of point is drawn once and then stamped; the legend shows the stamps
      const entry = add(legend, "span", "", look.name), stamp = document.createElement("canvas");
      const g = stamp.getContext("2d");
      stamp.width = stamp.height = 16 * ratio;
      g.scale(ratio, ratio);
      outline(g, look.shape, 8, 8, 4.5);
      g.lineWidth = look.shape ? 2.8 : 1.6;                 // a thin line around everything keeps points apart
      g.strokeStyle = paper;
      g.stroke();
      g.fillStyle = look.colour;
      g.fill();
      g.lineWidth = look.shape ? 1.3 : 0.6;
      g.strokeStyle = look.shape ? ink : "#777";
      g.stroke();
      entry.prepend(stamp);
      return stamp;
    });
    look(1, 0, 0);
  };
  model.on("msg:custom", answer);
  model.on("change:places", load);
  model.on("change:query change:results", drawMarks);
  load();
  return () => {
    model.off("msg:custom", answer);
    model.off("change:places", load);
    model.off("change:query change:results", drawMarks);
  };
}
export default { render };
