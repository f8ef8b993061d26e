// A field for one file: chosen, dropped on it, or (where `paste` is set) pasted anywhere on the page. The size is
// checked before anything is sent: a message above the server's limit would cut the connection without a word.
export default {
  render({ model, el }) {
    const label = document.createElement("label"), input = document.createElement("input");
    label.className = "apse-upload";
    input.type = "file";
    input.accept = model.get("accept");
    label.append(model.get("label") + " ", input);

    const send = async (file) => {
      if (!file) return;
      let content = new ArrayBuffer(0), problem = "";
      const limit = model.get("limit");
      if (file.size > limit) {
        problem = `It has ${(file.size / 1e6).toFixed(1)} MB, and ${limit / 1e6} are allowed: choose a smaller file.`;
      } else {
        try {
          content = await file.arrayBuffer();
        } catch {
          problem = "The browser could not read it: choose it again.";
        }
      }
      model.set({ name: file.name, content: new DataView(content), problem, count: model.get("count") + 1 });
      model.save_changes();
    };
    input.addEventListener("change", () => {
      send(input.files[0]);
      input.value = "";                                 // the same file may be chosen again
    });

    const over = (event) => {
      event.preventDefault();
      label.classList.add("apse-over");
    };
    const leave = () => label.classList.remove("apse-over");
    label.addEventListener("dragover", over);
    label.addEventListener("dragleave", leave);
    label.addEventListener("drop", (event) => {
      event.preventDefault();
      leave();
      send(event.dataTransfer.files[0]);
    });
    const paste = (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((f) => f.type.startsWith("image/"));
      if (!file || !model.get("paste") || !label.checkVisibility()) return;
      event.preventDefault();
      send(file);
    };
    document.addEventListener("paste", paste);
    el.append(label);
    return () => document.removeEventListener("paste", paste);
  },
};
