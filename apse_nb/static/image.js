// A PNG or JPEG in an <img> with alternative text. The element stays, only its source changes: no flicker, and a
// screen reader keeps its place.
export default {
  render({ model, el }) {
    const img = document.createElement("img");
    img.style.cssText = `max-width: max(100%, ${model.get("least")}px); min-width: ${model.get("least")}px`;
    el.style.overflowX = "auto";
    let url;                                          // of the image now shown
    const draw = () => {
      const old = url;
      if (!model.get("data").byteLength) return;      // nothing drawn yet
      url = URL.createObjectURL(new Blob([model.get("data")], { type: "image/png" }));
      img.src = url;                                  // the old image stays until the new one is decoded
      if (old) URL.revokeObjectURL(old);
    };
    const tell = () => { img.alt = model.get("alt"); };   // a property, not HTML: nothing in it can be run
    model.on("change:data", draw);
    model.on("change:alt", tell);
    draw();
    tell();
    el.append(img);
    return () => {
      model.off("change:data", draw);
      model.off("change:alt", tell);
      if (url) URL.revokeObjectURL(url);
    };
  },
};
