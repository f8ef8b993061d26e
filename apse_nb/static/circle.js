// A circle with points to drag. It shows `marks` and `texts`, and changes `angles`.
// Plain mathematics has its y axis up, the browser down: every y changes its sign on the way out and in.
const add = (parent, tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return parent.appendChild(node);
};
const SHAPES = {
  round: "M-.055 0a.055 .055 0 1 0 .11 0a.055 .055 0 1 0 -.11 0Z",
  square: "M-.05 -.05H.05V.05H-.05Z",
  star: "M0 -.1L.025 -.031L.095 -.031L.038 .012L.059 .081L0 .038L-.059 .081L-.038 .012L-.095 -.031L-.025 -.031Z",
};
const DRAW = {                                            // one way to draw for each kind of mark
  ring: (layer, m) =>
    add(layer, "circle", {
      cx: m.x,
      cy: -m.y,
      r: m.r,
      fill: "none",
      stroke: "gray",
      "stroke-width": 0.008,
      "stroke-dasharray": ".04 .025",
    }),
  line: (layer, m) =>
    add(layer, "path", { d: `M${m.x1} ${-m.y1}L${m.x2} ${-m.y2}`, stroke: "gray", "stroke-width": 0.008 }),
  diamond: (layer, m) =>
    add(layer, "path", {
      d: `M${m.x} ${-m.y - 0.06}l.06 .06l-.06 .06l-.06 -.06Z`,
      fill: m.colour,
      stroke: "black",
      "stroke-width": 0.01,
      class: "generated",
    }),
  arrow: (layer, m) => {
    const [dx, dy] = [m.x2 - m.x1, m.y1 - m.y2];
    // the head: two short strokes back from the tip
    const [ux, uy] = [dx, dy].map((v) => (0.06 * v) / Math.hypot(dx, dy));
    const head = [1, -1].map((s) => `M${m.x2} ${-m.y2}l${-ux - s * 0.6 * uy} ${-uy + s * 0.6 * ux}`).join("");
    add(layer, "path", {
      d: `M${m.x1} ${-m.y1}l${dx} ${dy}`,
      stroke: m.colour,
      "stroke-width": m.real ? 0.012 : 0.024,
      "stroke-dasharray": m.real ? ".03 .02" : "none",
      fill: "none",
    });
    add(layer, "path", { d: head, stroke: m.colour, "stroke-width": m.real ? 0.012 : 0.024, fill: "none" });
  },
};

function render({ model, el }) {
  const svg = add(el, "svg", {
    viewBox: "-1.75 -1.5 3.5 3",
    class: "apse-circle",
    role: "group",
    "aria-label": "Anchor, positive and negatives on a circle",
  });
  add(svg, "circle", { r: 1, fill: "none", stroke: "lightgray", "stroke-width": 0.02 });
  const below = add(svg, "g", { "aria-hidden": true }), middle = add(svg, "g", {});
  const above = add(svg, "g", { "aria-hidden": true, "pointer-events": "none" });
  const points = model.get("looks").map((look, i) => {
    const g = add(middle, "g", {
      role: "slider",
      tabindex: 0,
      "aria-label": look.name,
      "aria-valuemin": 0,
      "aria-valuemax": 359,
    });
    const body = add(g, "g", {});
    add(body, "circle", { r: 0.13, fill: "transparent", class: "halo" });   // a larger thing to grab, focus ring
    add(body, "path", { d: SHAPES[look.shape], fill: look.colour, stroke: "black", "stroke-width": 0.012 });
    const label = [add(g, "text", {}), add(g, "text", {}), add(g, "text", {})];
    const turn = (degrees) => {
      const angles = [...model.get("angles")];
      angles[i] = ((Math.round(degrees) % 360) + 360) % 360;
      model.set("angles", angles);
      model.save_changes();
    };
    g.onpointerdown = (e) => {
      g.focus();
      g.setPointerCapture(e.pointerId);
      e.preventDefault();
    };
    g.onpointermove = (e) => {
      if (!g.hasPointerCapture(e.pointerId)) return;
      const at = new DOMPoint(e.clientX, e.clientY).matrixTransform(svg.getScreenCTM().inverse());
      turn((Math.atan2(-at.y, at.x) * 180) / Math.PI);
    };
    g.onkeydown = (e) => {
      // anticlockwise is left on top of the circle
      const step = { ArrowLeft: 1, ArrowUp: 1, ArrowRight: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[e.key];
      const now = model.get("angles")[i];
      if (step) turn(now + step * (e.shiftKey ? 10 : 1));
      else if (e.key === "Home") turn(0);
      else if (e.key === "End") turn(359);
      else return;
      e.preventDefault();
      e.stopPropagation();                                // not for the notebook's own shortcuts
    };
    return { g, body, label };
  });
  const move = () =>
    points.forEach(({ g, body, label }, i) => {
      const angle = model.get("angles")[i], look = model.get("looks")[i], radians = (angle * Math.PI) / 180;
      const [x, y] = [Math.cos(radians), -Math.sin(radians)];
      g.style.display = look.shown ? "" : "none";
      g.setAttribute("aria-valuenow", angle);
      body.setAttribute("transform", `translate(${x} ${y})`);
      [...look.lines, `${angle}°`].forEach((line, k) => {
        label[k].textContent = line;
        label[k].setAttribute("x", 1.35 * x);
        label[k].setAttribute("y", 1.32 * y);
        label[k].setAttribute("dy", `${1.15 * (k - 0.6)}em`);
      });
    });
  const tell = () => points.forEach(({ g }, i) => g.setAttribute("aria-valuetext", model.get("texts")[i] ?? ""));
  const draw = () => {
    below.replaceChildren();
    above.replaceChildren();
    for (const m of model.get("marks")) DRAW[m.kind](m.kind === "arrow" ? above : below, m);
  };
  model.on("change:angles change:looks", move);
  model.on("change:texts", tell);
  model.on("change:marks", draw);
  move();
  tell();
  draw();
  return () => {
    model.off("change:angles change:looks", move);
    model.off("change:texts", tell);
    model.off("change:marks", draw);
  };
}
export default { render };
