// Values under the pointer. Each matrix is a PNG whose palette index is the value's level; the levels are read
// from the file's own bytes, not from a canvas, which browsers may change to keep from being recognised.
"use strict";
{
  const LEVELS = 254;
  const MISSING = 255;
  const HINT = "Point at a cell, or go from cell to cell with the arrow keys, to read its values.";

  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  const inflate = async (bytes) => {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  const partOf = (file, wanted) => {
    const view = new DataView(file.buffer);
    for (let at = 8; ; at += 12 + view.getUint32(at)) {
      if (String.fromCharCode(...file.subarray(at + 4, at + 8)) === wanted) {
        return file.subarray(at + 8, at + 8 + view.getUint32(at));
      }
    }
  };

  // The page's own PNGs have one IDAT, and every row starts with a 0 for "not filtered".
  const levelsOf = async (image) => {
    const file = bytesOf(image.src.slice(image.src.indexOf(",") + 1));
    return { levels: await inflate(partOf(file, "IDAT")), colours: partOf(file, "PLTE") };
  };

  // Where each place along an edge is in the picture when maps stand in the order of their numbers.
  const byNumber = (maps) => maps.map((_, i) => i).sort((i, j) => maps[i] - maps[j]);

  const paint = (canvas, { levels, colours }, rows, columns) => {
    canvas.width = columns.length;
    canvas.height = rows.length;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(columns.length, rows.length);
    let to = 0;
    for (const row of rows) {
      for (const column of columns) {
        const from = 3 * levels[row * (columns.length + 1) + column + 1];
        for (let channel = 0; channel < 3; channel += 1) pixels.data[to + channel] = colours[from + channel];
        pixels.data[to + 3] = 255;
        to += 4;
      }
    }
    context.putImageData(pixels, 0, 0);
  };

  const readable = (value, error) => value.toFixed(Math.max(2, Math.min(6, Math.ceil(-Math.log10(error || 1e-3)))));

  const cosineWords = (level) =>
    `centred cosine ${readable((level / LEVELS) * 2 - 1, 1 / LEVELS)} ± ${(1 / LEVELS).toFixed(3)}`;

  const informationWords = (level, image) => {
    const low = Number(image.dataset.low);
    const span = Number(image.dataset.high) - low;
    const error = span / LEVELS / 2;
    return `${readable(low + (level / LEVELS) * span, error)} ± ${error.toPrecision(1)} nats`;
  };

  const pvalueWords = (level, floor) => {
    const value = floor ** (level / LEVELS);
    return level === LEVELS ? `p ≤ ${floor.toPrecision(2)} family-wise` : `p ≈ ${value.toPrecision(2)} family-wise`;
  };

  const makeReadable = (box) => {
    const { a, b } = box.dataset;
    const rows = box.dataset.rows.split(" ");
    const columns = box.dataset.columns.split(" ");
    const floor = Number(box.dataset.floor);
    const pictures = [...box.querySelectorAll(".picture")];
    const readout = box.querySelector(".readout");
    const images = pictures.map((picture) => picture.querySelector("img"));
    const cursors = pictures.map((picture) => {
      const cursor = document.createElement("div");
      cursor.className = "cursor";
      cursor.hidden = true;
      picture.append(cursor);
      return cursor;
    });
    const clustered = [[...rows.keys()], [...columns.keys()]];
    let order = clustered;
    let loading;
    let place = [0, 0];
    const load = () => {
      loading ??= Promise.all([...images.map(levelsOf), inflate(bytesOf(box.dataset.pvalues))]);
      return loading;
    };
    const show = async (row, column) => {
      place = [row, column];
      const [{ levels: information }, { levels: cosine }, pvalues] = await load();
      if (place[0] !== row || place[1] !== column) return;
      const [i, j] = [order[0][row], order[1][column]];
      const at = i * (columns.length + 1) + j + 1;
      const who = document.createElement("b");
      who.textContent = a === b ? `${a}: maps ${rows[i]} and ${columns[j]}` : `${a} ${rows[i]} and ${b} ${columns[j]}`;
      const words = information[at] === MISSING
        ? "one map with itself"
        : [informationWords(information[at], images[0]), pvalueWords(pvalues[i * columns.length + j], floor), cosineWords(cosine[at])].join("; ");
      readout.replaceChildren(who, `: ${words}.`);
      cursors.forEach((cursor) => {
        cursor.hidden = false;
        cursor.style.left = `${(100 * (column + 0.5)) / columns.length}%`;
        cursor.style.top = `${(100 * (row + 0.5)) / rows.length}%`;
        cursor.style.width = `${100 / columns.length}%`;
        cursor.style.height = `${100 / rows.length}%`;
      });
    };
    const button = document.createElement("button");
    button.type = "button";
    button.className = "order";
    button.textContent = "Order by map number";
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", async () => {
      const read = await load();
      const numbered = order === clustered;
      order = numbered ? [byNumber(rows), byNumber(columns)] : clustered;
      button.setAttribute("aria-pressed", String(numbered));
      pictures.forEach((picture, index) => {
        picture.querySelector("canvas")?.remove();
        cursors[index].hidden = true;
        if (!numbered) return;
        const canvas = document.createElement("canvas");
        canvas.setAttribute("aria-hidden", "true");
        paint(canvas, read[index], ...order);
        images[index].after(canvas);
      });
      for (const [kind, maps, side] of [["down", rows, 0], ["across", columns, 1]]) {
        box.querySelectorAll(`.ticks.${kind} span`).forEach((tick) => {
          tick.textContent = maps[order[side][tick.dataset.at]];
        });
      }
      box.querySelector(".by").textContent = numbered ? "numbers" : "clusters";
      readout.textContent = HINT;
    });
    box.prepend(button);
    const within = (index, length) => Math.max(0, Math.min(length - 1, index));
    const follow = (event) => {
      const frame = event.currentTarget.getBoundingClientRect();
      const row = Math.floor(((event.clientY - frame.top) / frame.height) * rows.length);
      const column = Math.floor(((event.clientX - frame.left) / frame.width) * columns.length);
      show(within(row, rows.length), within(column, columns.length));
    };
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    readout.textContent = HINT;
    readout.setAttribute("role", "status");
    pictures.forEach((picture) => {
      picture.tabIndex = 0;
      picture.setAttribute("role", "application");
      picture.setAttribute("aria-label", `Matrix of ${a} and ${b}: arrow keys go from cell to cell`);
      picture.addEventListener("pointermove", follow);
      picture.addEventListener("pointerdown", follow);
      picture.addEventListener("focus", () => picture.matches(":focus-visible") && show(...place));
      picture.addEventListener("keydown", (event) => {
        const step = steps[event.key];
        if (!step) return;
        event.preventDefault();
        const far = event.shiftKey ? 10 : 1;
        show(within(place[0] + far * step[0], rows.length), within(place[1] + far * step[1], columns.length));
      });
    });
  };

  document.querySelectorAll(".matrices").forEach(makeReadable);
}
