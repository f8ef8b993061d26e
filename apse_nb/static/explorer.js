// The head of the page: what is searched and with which network, in words. It says `ready` when it stands.
export default {
  render({ model, el }) {
    const head = el.appendChild(document.createElement("header"));
    head.className = "apse-page";
    const title = head.appendChild(document.createElement("h1")), words = head.appendChild(document.createElement("p"));
    const tell = () => {
      title.textContent = model.get("title");             // text, never HTML
      words.textContent = model.get("words");
    };
    model.on("change:title change:words", tell);
    tell();
    document.title = "apse_explore";
    model.send({ ready: true });
    return () => model.off("change:title change:words", tell);
  },
};
