// Tables whose cells change in place: who reads or marks one is not thrown out of it every two seconds.

/**
 * Make a table's body hold these rows.
 *
 * A cell is a text, or {value, kind, draw}: `value` tells whether it has changed, `kind` is its class, and `draw` returns
 * what to put there, where that is no text.
 */
export function fill(table, rows) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  rows.forEach((cells, i) => {
    const row = body.rows[i] ?? body.insertRow();
    cells.forEach((cell, j) => {
      let place = row.cells[j];
      if (!place) {
        place = document.createElement(j === 0 ? "th" : "td");
        if (j === 0) {
          place.scope = "row";
        } else {
          place.dataset.label = heads[j].textContent;
        }
        row.append(place);
      }
      paint(place, typeof cell === "object" ? cell : { value: cell }, heads[j].className);
    });
    while (row.cells.length > cells.length) {
      row.lastElementChild.remove();
    }
  });
  while (body.rows.length > rows.length) {
    body.deleteRow(-1);
  }
}

function paint(place, { value, kind, draw }, column) {
  const className = [column, kind].filter(Boolean).join(" ");
  if (place.className !== className) {
    place.className = className;
  }
  if (place.dataset.value === String(value)) {
    return;
  }
  place.dataset.value = value;
  if (draw) {
    place.replaceChildren(...[draw()].flat());
  } else {
    place.textContent = value;
  }
}

export function make(name, className, ...content) {
  const made = document.createElement(name);
  if (className) {
    made.className = className;
  }
  made.append(...content);
  return made;
}

/** Make a select offer these [value, text], keeping what is chosen; returns whether the choice has changed. */
export function offer(select, options) {
  const before = select.value;
  const known = [...select.options].map((option) => option.value);
  if (known.join("\n") !== options.map(([value]) => value).join("\n")) {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    if (options.some(([value]) => value === before)) {
      select.value = before;
    }
  }
  return select.value !== before;
}
