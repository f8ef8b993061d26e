// What the pages share: elements, drawings, and the widgets' parts (a slider, a line that is read out) on a model of
// their own, where a notebook would have a kernel behind it.
import message from "../../../apse_nb/static/message.js";
import sliderView from "../../../apse_nb/static/slider.js";

export const readData = () => JSON.parse(document.getElementById("data").textContent);

function grow(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
export const element = (tag, attributes = {}, ...children) => grow(document.createElement(tag), attributes, children);
export const draw = (tag, attributes = {}, ...children) =>
  grow(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// A drawing whose description changes: a title for screen readers, and a way to say what is to be seen now.
export function sheet(width, height, name) {
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, class: `sheet ${name}`, role: "img" });
  return { svg, describe: (text) => svg.setAttribute("aria-label", text) };
}

export function makeModel(state) {
  const heard = [];
  let changed = new Set();
  return {
    get: (name) => state[name],
    set(name, value) {                                     // or several, as an object
      const values = typeof name === "object" ? name : { [name]: value };
      Object.assign(state, values);
      Object.keys(values).forEach((key) => changed.add(key));
    },
    save_changes() {
      const now = changed;
      changed = new Set();
      for (const [names, hear] of [...heard]) {
        if (names.split(" ").some((n) => n === "change" || now.has(n.replace("change:", "")))) hear();
      }
    },
    on: (names, hear) => heard.push([names, hear]),
    off: (names, hear) => heard.splice(heard.findIndex(([n, h]) => n === names && h === hear), 1),
    put(values) {                                          // from the page, not from the reader's hand
      this.set(values);
      this.save_changes();
    },
  };
}

export function slider(label, range, hear) {
  const el = element("div", { class: "control" }), model = makeModel({ label, disabled: false, ...range });
  let own = false;
  sliderView.render({ model, el });
  model.on("change:value", () => own || hear(model.get("value")));
  const show = (values) => {
    own = true;
    model.put(values);
    own = false;
  };
  return { el, show };
}

export function choice(label, options, hear) {
  const select = element("select", { onchange: () => hear(select.value) },
    ...options.map((option) => element("option", { value: option }, option)));
  return { el: element("label", { class: "control" }, element("span", {}, label), select), select };
}

export function tick(label, hear) {
  const box = element("input", { type: "checkbox", onchange: () => hear(box.checked) });
  return { el: element("label", { class: "control tick" }, box, label), box };
}

export function line() {
  const el = element("div"), model = makeModel({ text: "", alarm: false });
  message.render({ model, el });
  return { el, say: (text, alarm = false) => model.put({ text, alarm }) };
}

// One image of a sprite as the background of an element.
export function picture(sprite, index, attributes = {}) {
  const [column, row] = [index % sprite.columns, Math.floor(index / sprite.columns)];
  const percent = (at, count) => (count > 1 ? (100 * at) / (count - 1) : 0);
  const node = element("span", { class: "picture", ...attributes });
  Object.assign(node.style, {
    backgroundImage: `url("${sprite.file}")`,
    backgroundSize: `${100 * sprite.columns}% ${100 * sprite.rows}%`,
    backgroundPosition: `${percent(column, sprite.columns)}% ${percent(row, sprite.rows)}%`,
  });
  return node;
}
