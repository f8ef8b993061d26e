// Images as buttons: click, or walk with the arrow keys and press Enter. One stop for Tab, arrows walk inside.
// The corner, or the key o, asks for the large image, which comes as a message and is shown in a dialog.
const add = (parent, tag, className, text = "") => {
  const child = parent.appendChild(document.createElement(tag));
  child.className = className;
  child.textContent = text;                             // text, never HTML: a file's name cannot become page
  return child;
};

function lightbox(el, model) {
  const dialog = add(el, "dialog", "apse-lightbox"), img = add(dialog, "img", ""), words = add(dialog, "p", "");
  const bar = add(dialog, "div", ""), path = add(bar, "code", "");
  const copy = add(bar, "button", "", "Copy path"), close = add(bar, "button", "", "Close");
  copy.onclick = async () => {
    const choose = () => getSelection().selectAllChildren(path);       // where the clipboard is not allowed
    try {
      await navigator.clipboard.writeText(path.textContent);
      copy.textContent = "Copied";
    } catch {
      choose();
    }
  };
  close.onclick = () => dialog.close();
  return (message) => {
    img.src = message.src;
    img.alt = message.alt;
    words.textContent = message.alt;
    path.textContent = message.path ?? "";
    path.hidden = copy.hidden = !message.path;
    copy.textContent = "Copy path";
    dialog.showModal();
    close.focus();
  };
}

export default {
  render({ model, el }) {
    const grid = document.createElement("div");
    grid.className = "apse-grid";
    grid.setAttribute("role", "group");
    grid.dataset.lmSuppressShortcuts = "true";          // JupyterLab has other plans for the arrow keys
    const show = lightbox(el, model);
    const draw = () => {
      const focused = grid.contains(document.activeElement);
      grid.setAttribute("aria-label", model.get("label"));
      grid.style.setProperty("--apse-side", `${model.get("side")}px`);
      grid.replaceChildren();
      for (const tile of model.get("tiles")) {
        const button = add(grid, "button", "apse-tile");
        button.type = "button";
        button.tabIndex = grid.children.length === 1 ? 0 : -1;
        button.dataset.id = tile.id;
        button.title = tile.alt;
        const frame = add(button, "span", "apse-frame");
        frame.style.border = tile.border;
        frame.style.setProperty("--apse-colour", tile.border.split(" ").pop());       // for grid.css in the dark
        const img = add(frame, "img", "");
        img.alt = tile.alt;
        img.src = tile.src;
        if (tile.sign) add(frame, "span", "apse-sign", tile.sign).ariaHidden = "true";
        // the alternative text says it already
        for (const line of tile.caption) add(button, "span", "apse-line", line).ariaHidden = "true";
        if (model.get("large")) {                       // for the mouse; the keyboard has o
          const corner = add(frame, "span", "apse-open", "\u2922");
          corner.ariaHidden = "true";
          corner.title = "large (key o)";
        }
        button.onclick = (event) => {
          const large = event.target.classList.contains("apse-open");
          model.send(large ? { open: tile.id } : { choose: tile.id });
        };
      }
      if (focused && grid.firstChild) grid.firstChild.focus();       // the button that was pressed is gone
    };
    const walk = (event) => {
      const all = [...grid.children], here = all.indexOf(document.activeElement);
      if (here < 0) return;
      if (event.key === "o" && model.get("large")) {
        model.send({ open: Number(all[here].dataset.id) });
        return;
      }
      const columns = Math.max(1, all.filter((b) => b.offsetTop === all[0].offsetTop).length);
      const step = {
        ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -here, End: all.length - 1 - here,
      }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const next = all[here + step];
      if (!next) return;
      all[here].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    };
    const hear = (message) => {
      if (message.large) show(message);
    };
    model.on("change:tiles change:label change:side", draw);
    model.on("msg:custom", hear);
    grid.addEventListener("keydown", walk);
    draw();
    el.prepend(grid);
    return () => {
      model.off("change:tiles change:label change:side", draw);
      model.off("msg:custom", hear);
    };
  },
};
