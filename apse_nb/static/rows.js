// An image in which rows can be chosen, by a click or with the arrow keys.
function render({ model, el }) {
  const frame = el.appendChild(document.createElement("div")), img = frame.appendChild(document.createElement("img"));
  frame.className = "apse-rows";
  el.style.overflowX = "auto";
  let url;
  const draw = () => {
    const old = url;
    if (!model.get("data").byteLength) return;
    img.src = url = URL.createObjectURL(new Blob([model.get("data")], { type: "image/png" }));
    if (old) URL.revokeObjectURL(old);
  };
  const choose = (row) => {
    model.set("row", Math.min(Math.max(row, 0), model.get("rows") - 1));
    model.save_changes();
  };
  const boxes = model.get("boxes").map(([left, bottom, width, height]) => {
    const box = frame.appendChild(document.createElement("div")), percent = (share) => `${100 * share}%`;
    Object.assign(box.style, {
      left: percent(left), bottom: percent(bottom), width: percent(width), height: percent(height),
    });
    box.onclick = (event) => {
      const place = box.getBoundingClientRect();
      choose(Math.floor((event.clientY - place.top) / place.height * model.get("rows")));
      boxes[0].focus();
    };
    return box;
  });
  const [slider, ...forTheMouseOnly] = boxes;
  for (const box of forTheMouseOnly) box.setAttribute("aria-hidden", true);
  const attributes = {
    role: "slider", tabindex: 0, "aria-label": "anchor row", "aria-orientation": "vertical", "aria-valuemin": 0,
    "aria-valuemax": model.get("rows") - 1,
  };
  for (const [name, value] of Object.entries(attributes)) slider.setAttribute(name, value);
  slider.onkeydown = (event) => {
    const now = model.get("row"), page = model.get("page");
    const next = {
      ArrowDown: now + 1, ArrowRight: now + 1, ArrowUp: now - 1, ArrowLeft: now - 1, PageDown: now + page,
      PageUp: now - page, Home: 0, End: model.get("rows") - 1,
    }[event.key];
    if (next === undefined) return;
    choose(next);
    event.preventDefault();
    event.stopPropagation();
  };
  const tell = () => {
    img.alt = model.get("alt");
    slider.setAttribute("aria-valuenow", model.get("row"));
    slider.setAttribute("aria-valuetext", model.get("text"));
  };
  model.on("change:data", draw);
  model.on("change:alt change:row change:text", tell);
  draw();
  tell();
  return () => {
    model.off("change:data", draw);
    model.off("change:alt change:row change:text", tell);
    if (url) URL.revokeObjectURL(url);
  };
}
export default { render };
