// One line of text that screen readers read out when it changes: a status at the next pause, an alert at once.
export default {
  render({ model, el }) {
    const line = document.createElement("p");
    const tell = () => {
      const alarm = model.get("alarm") && model.get("text");
      line.setAttribute("role", alarm ? "alert" : "status");
      line.className = alarm ? "apse-message apse-alarm" : "apse-message";
      line.textContent = (alarm ? "\u26A0 " : "") + model.get("text");
    };
    model.on("change:text change:alarm", tell);
    tell();
    el.append(line);
    return () => model.off("change:text change:alarm", tell);
  },
};
