// Invisible. Put into a box, it leaves the arrow keys to the controls in the outermost box around it: JupyterLab would
// like to have them for itself.
export default {
  render({ el }) {
    const mark = () => {
      if (!el.isConnected) {
        requestAnimationFrame(mark);                    // not on the page yet
        return;
      }
      let box = el;
      for (let up = el.parentElement; up; up = up.parentElement) if (up.matches(".widget-box")) box = up;
      box.addEventListener("focusin", (event) => { event.target.dataset.lmSuppressShortcuts = "true"; });
    };
    mark();
  },
};
