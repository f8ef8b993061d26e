// Buttons that save a text, which Python makes when asked, as a file.
export default {
  render({ model, el }) {
    const bar = el.appendChild(document.createElement("div"));
    bar.append("Save results as ");
    for (const kind of model.get("kinds")) {
      const button = bar.appendChild(document.createElement("button"));
      button.type = "button";
      button.textContent = kind;
      button.style.cssText = "min-height: 28px; margin-right: 4px;";
      button.onclick = () => model.send({ save: kind });
    }
    const hear = (message) => {
      if (typeof message.text !== "string") return;
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([message.text], { type: "text/plain;charset=utf-8" }));
      link.download = message.name;
      link.click();
      URL.revokeObjectURL(link.href);
    };
    model.on("msg:custom", hear);
    return () => model.off("msg:custom", hear);
  },
};
