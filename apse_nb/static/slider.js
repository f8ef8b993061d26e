// A slider and a number field with one name.
export default {
  render({ model, el }) {
    const make = (tag) => document.createElement(tag);
    const label = make("label"), name = make("span"), range = make("input"), number = make("input");
    range.type = "range";
    number.type = "number";
    label.style.cssText = "display: flex; gap: 6px; align-items: center;";
    name.style.flex = "0 0 84px";
    range.style.cssText = "flex: 1; min-width: 60px;";
    number.style.width = "62px";
    const show = () => {
      name.textContent = model.get("label");
      for (const input of [range, number]) {
        for (const key of ["min", "max", "step", "disabled"]) input[key] = model.get(key);
        input.setAttribute("aria-label", model.get("label") + (input === number ? " as a number" : ""));
        const typing = input === document.activeElement && Number(input.value) === model.get("value");
        if (!typing) input.value = model.get("value");
      }
    };
    const tell = (event) => {
      const value = Number(event.target.value);
      const halfTyped = event.target.value === "" || value < model.get("min") || value > model.get("max");
      if (halfTyped) return;
      model.set("value", value);
      model.save_changes();
    };
    range.addEventListener("input", tell);
    number.addEventListener("change", tell);
    model.on("change", show);
    show();
    label.append(name, range, number);
    for (const input of [range, number]) input.dataset.lmSuppressShortcuts = "true";   // see own_keys.js
    el.append(label);
    return () => model.off("change", show);
  },
};
