// The list of kept selections.

const button = (words, label, act) => {
  const element = document.createElement("button");
  Object.assign(element, { type: "button", textContent: words, onclick: act });
  element.setAttribute("aria-label", label);
  return element;
};

const offer = (link, { href, file }) => Object.assign(link, { href, textContent: file, download: file });

function writer(source, run, name, formats, say) {
  const bar = document.createElement("div"), choice = document.createElement("select");
  bar.className = "bar";
  choice.setAttribute("aria-label", `Format of ${name}`);
  choice.append(...formats.map((suffix) => new Option(suffix)));
  const link = document.createElement("a");
  const write = button("Write", `Write ${name} to a file`, async () => {
    const { path, file, notes } = await source.write(run, name, choice.value);
    offer(link, source.written(run, file));
    say([`Wrote ${path}.`, ...notes].join(" "));
  });
  bar.append(choice, write, link);
  return bar;
}

// act(promise): shows its error; how(): how a use combines
export function listed(element, state, formats, how, act, say) {
  element.replaceChildren(...state.saved.map(({ name, count, how: words }) => {
    const item = document.createElement("li"), bar = document.createElement("div"), about = document.createElement("small");
    bar.className = "bar";
    const title = document.createElement("strong");
    title.textContent = name;
    about.textContent = `${count.toLocaleString("en")} images: ${words}`;
    bar.append(title,
      button("Use", `Use ${name}`, () => state.use(name, how())),
      button("Rename", `Rename ${name}`, () => {
        const other = prompt(`New name of ${name}`, name);
        if (other && other !== name) act(state.rename(name, other));
      }),
      button("Remove", `Remove ${name}`, () => act(state.remove(name))));
    item.append(bar, about);
    if (state.source.live) {
      item.append(writer(state.source, state.run, name, formats, say));
    } else {
      const link = document.createElement("a");
      offer(link, state.source.written(state.run, name));
      item.append(link);
    }
    return item;
  }));
}
