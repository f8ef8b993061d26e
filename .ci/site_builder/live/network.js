// The shipped network in the page: an ONNX file run by onnxruntime-web, and the scenes that are nearest in its space.
import uploadView from "../../../apse_nb/static/upload.js";
import { element, line, makeModel, picture, readData, slider } from "./parts.js";

const data = readData(), { side, classes, coarse, parent } = data;
const inner = side - 2 * data.margin;                        // the network sees the middle
const status = line(), figure = document.getElementById("figure");
figure.append(status.el);

// What keeps the network from running here, in one sentence that says what to do; nothing if nothing does.
function obstacle() {
  if (data.missing) return data.missing;
  if (typeof WebAssembly !== "object") {
    return "This browser has no WebAssembly, which runs the network: open the page in a newer browser, or allow it.";
  }
  if (location.protocol === "file:") {
    return "Browsers load no WebAssembly from a folder: run python -m http.server --directory _docs, and open "
      + "localhost:8000/live/network.html.";
  }
  return "";
}

const load = async (name) => {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name} did not come (${answer.status})`);
  return answer.arrayBuffer();
};

// float16 as it lies in the file
function half(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, rest = bits & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + rest / 1024) : 2 ** -24 * rest);
}

const canvas = element("canvas", {
  width: side, height: side, class: "easel", role: "img", "aria-label": "The image that the network sees; draw on it",
});
const brush = canvas.getContext("2d", { willReadFrequently: true });
const views = Object.fromEntries(["low", "high"].map((head) => {
  const shown = element("canvas", { width: inner, height: inner, role: "img" });
  return [head, { shown, caption: element("figcaption") }];
}));
const bars = element("div", { class: "bars" }), maps = element("div", { class: "class-maps" });
const nearest = element("ol", { class: "nearest", "aria-label": "nearest scenes, best first" });
let session, gallery, examples, values = null, shownNow = "", again = false, busy = false;

const percent = (p) => `${Math.round(100 * p)} %`;
const best = (xs) => xs.reduce((top, x, i) => (x > xs[top] ? i : top), 0);
function placeOf({ numbers, width, height }) {              // of the largest number, in words
  const top = best(numbers), at = (i, n) => Math.min(Math.floor((3 * (i + 0.5)) / n), 2);
  const row = ["top", "middle", "bottom"][at(Math.floor(top / width), height)];
  return `${row} ${["left", "centre", "right"][at(top % width, width)]}`;
}

// The image, darker where the head looks less.
function drawAttention(head, map, words) {
  const { shown, caption } = views[head], paper = shown.getContext("2d");
  const veil = new OffscreenCanvas(map.width, map.height), ink = new ImageData(map.width, map.height);
  map.numbers.forEach((a, i) => { ink.data[4 * i + 3] = 215 * (1 - a); });
  veil.getContext("2d").putImageData(ink, 0, 0);
  paper.drawImage(canvas, -data.margin, -data.margin);
  paper.drawImage(veil, 0, 0, inner, inner);
  shown.setAttribute("aria-label", `${words}, brightest at the ${placeOf(map)}`);
  caption.textContent = words;
}

function drawClassMap(map, low, high, name, share) {
  const small = element("canvas", { width: map.width, height: map.height, role: "img" });
  const ink = new ImageData(map.width, map.height);
  map.numbers.forEach((v, i) => {
    const t = (v - low) / (high - low || 1), mix = (a, b) => a + (b - a) * t;
    ink.data.set([mix(27, 255), mix(30, 213), mix(75, 74), 255], 4 * i);
  });
  small.getContext("2d").putImageData(ink, 0, 0);
  small.setAttribute("aria-label", `class map of ${name}, highest at the ${placeOf(map)}`);
  return element("figure", {}, small, element("figcaption", {}, name, element("br"), percent(share)));
}

function drawHead(head, names) {
  const shares = values[`${head}_probabilities`].numbers, all = values[`${head}_class_maps`];
  const size = all.width * all.height, [low, high] = [Math.min(...all.numbers), Math.max(...all.numbers)];
  return names.map((name, k) => {
    const map = { ...all, numbers: all.numbers.slice(k * size, (k + 1) * size) };
    return drawClassMap(map, low, high, name, shares[k]);
  });
}

function show(milliseconds) {
  const polarity = values.low_probabilities.numbers, emotion = values.high_probabilities.numbers;
  const [p, e] = [best(polarity), best(emotion)];
  drawAttention("low", values.low_attention, "where the polarity head looks (conv3)");
  drawAttention("high", values.high_attention, "where the emotion head looks (conv5)");
  bars.replaceChildren(...[...coarse.map((name, k) => [name, polarity[k]]), null, ...classes.map((name, k) =>
    [name, emotion[k]])].map((row) => row === null ? element("hr") : element("div", { class: "bar" },
    element("span", {}, row[0]), element("span", { class: "track" },
      element("span", { class: "fill", style: `width: ${100 * row[1]}%` })), element("span", {}, percent(row[1])))));
  maps.replaceChildren(...drawHead("low", coarse), ...drawHead("high", classes));
  const found = near();
  nearest.replaceChildren(...found.slice(0, 8).map(({ i, cosine }) => element("li", {},
    picture(data.sprite, i, { role: "img", "aria-label": `a scene of ${classes[data.labels[i]]}` }),
    element("span", {}, classes[data.labels[i]], element("br"), `cosine ${cosine.toFixed(2)}`))));
  const agree = parent[e] === p ? "The two agree" : "The two heads disagree";
  status.say(`${shownNow}: the polarity head says ${coarse[p]} (${percent(polarity[p])}), the emotion head says `
    + `${classes[e]} (${percent(emotion[e])}). ${agree}. Nearest: ${found.slice(0, 3).map(({ i }) =>
      classes[data.labels[i]]).join(", ")}. ${Math.round(milliseconds)} ms.`);
}

function near() {
  const own = values.embedding.numbers, width = own.length;
  return data.labels.map((_, i) => ({ i, cosine: own.reduce((sum, x, k) => sum + x * gallery[i * width + k], 0) }))
    .sort((a, b) => b.cosine - a.cosine);
}

async function look() {
  again = busy;
  if (busy) return;
  busy = true;
  const start = performance.now(), { data: pixels } = brush.getImageData(0, 0, side, side);
  const rgb = Float32Array.from({ length: side * side * 3 }, (_, i) => pixels[4 * Math.floor(i / 3) + (i % 3)]);
  const answer = await session.run({ pixels: new globalThis.ort.Tensor("float32", rgb, [1, side, side, 3]) });
  values = Object.fromEntries(Object.entries(answer).map(([name, { data: numbers, dims }]) =>
    [name, { numbers: Array.from(numbers), height: dims.at(-2), width: dims.at(-1) }]));
  show(performance.now() - start);
  busy = false;
  if (again) await look();                                  // drawn on meanwhile
}

function choose(k) {
  const { columns } = data.examples;
  shownNow = `Scene ${k + 1}`;
  brush.drawImage(examples, (k % columns) * side, Math.floor(k / columns) * side, side, side, 0, 0, side, side);
  return look();
}

// A file, squeezed to a square as everywhere in this book
async function take(file, name) {
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    status.say(`${name} could not be read as an image: choose a JPEG or PNG file.`, true);
    return;
  }
  shownNow = name;
  brush.imageSmoothingQuality = "high";
  brush.drawImage(image, 0, 0, side, side);
  await look();
}

const colour = element("input", { type: "color", value: "#e0452a", "aria-label": "colour of the brush" });
let width = 5, from = null;
const size = slider("brush", { min: 1, max: 24, step: 1, value: width }, (v) => { width = v; });
const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) * side) / box.width, ((event.clientY - box.top) * side) / box.height];
};
function stroke(event) {
  const to = at(event);
  Object.assign(brush, { strokeStyle: colour.value, lineWidth: width, lineCap: "round" });
  brush.beginPath();
  brush.moveTo(...from);
  brush.lineTo(...to);
  brush.stroke();
  from = to;
  look();
}
canvas.onpointerdown = (event) => {
  canvas.setPointerCapture(event.pointerId);
  from = at(event);
  shownNow = "Your drawing";
  stroke(event);
};
canvas.onpointermove = (event) => from && stroke(event);
canvas.onpointerup = canvas.onpointercancel = () => { from = null; };
const blank = element("button", { type: "button", onclick: () => {
  shownNow = "An empty image";
  brush.fillStyle = colour.value;
  brush.fillRect(0, 0, side, side);
  look();
} }, "fill with this colour");

const file = makeModel({
  label: "or choose, drop or paste an image", accept: "image/*", paste: true, limit: 3e7, count: 0,
});
const fileBox = element("div", { class: "file" });
uploadView.render({ model: file, el: fileBox });
file.on("change:count", () => {
  const problem = file.get("problem"), name = file.get("name");
  if (problem) status.say(`${name} was not taken. ${problem}`, true);
  else take(new Blob([file.get("content")]), name);
});

async function begin() {
  const problem = obstacle();
  if (problem) return status.say(problem, true);
  status.say("The network is loading.");
  globalThis.ort.env.wasm.numThreads = 1;
  globalThis.ort.env.wasm.wasmPaths = new URL("onnxruntime/", location.href).href;
  examples = new Image();
  examples.src = data.examples.file;
  [session, gallery] = await Promise.all([
    globalThis.ort.InferenceSession.create(data.network), load(data.embeddings), examples.decode()]);
  gallery = Float32Array.from(new Uint16Array(gallery), half);
  const buttons = data.examples.labels.map((label, k) => element("button", {
    type: "button", class: "tile", "aria-label": `scene ${k + 1}, labelled ${classes[label]}`, onclick: () => choose(k),
  }, picture(data.examples, k)));
  const painting = element("div", { class: "control" }, colour, blank);
  figure.replaceChildren(
    element("p", { class: "help" }, "Choose a scene, draw on the image, or bring your own."),
    element("div", { class: "examples" }, ...buttons), fileBox, status.el,
    element("div", { class: "views" },
      element("figure", {}, canvas, element("figcaption", {}, "the image: draw here"), painting, size.el),
      ...Object.values(views).map(({ shown, caption }) => element("figure", {}, shown, caption)), bars),
    element("h2", {}, "Class maps"), maps, element("h2", {}, `The nearest of ${data.labels.length} scenes`), nearest);
  await choose(data.examples.start);               // the first run is slow: the next one is shown
  await look();
  window.figure = { choose, values: () => values, near };
}
begin().catch((error) => status.say(`The network could not be loaded: ${error.message}. Load the page again.`, true));
