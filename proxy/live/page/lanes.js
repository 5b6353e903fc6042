// Where each bar goes: rows of a few pixels, of which an exchange takes as many side by side as it has lanes.

export const UNIT = 4;
const GAP_MS = 60;

/** Units an exchange takes: its bar, and its samples below it. */
export function tall(row) {
  const calls = row.calls?.length ?? 0;
  return 4 + (calls > 1 ? calls + 1 : 0);
}

export class Lanes {
  constructor() {
    this.free = []; // until when each row is taken
  }

  resize(rows) {
    while (this.free.length < rows) this.free.push(-Infinity);
    this.free.length = Math.max(rows, 0);
  }

  clear() {
    this.free.fill(-Infinity);
  }

  /** The first place that is free from `start` on, taken until `end`; -1 if there is none. */
  take(start, end, units) {
    let run = 0;
    for (let row = 0; row < this.free.length; row += 1) {
      run = this.free[row] + GAP_MS <= start ? run + 1 : 0;
      if (run === units) {
        const place = row - units + 1;
        this.hold(place, end, units);
        return place;
      }
    }
    return -1;
  }

  hold(place, end, units) {
    for (let row = place; row < Math.min(place + units, this.free.length); row += 1) this.free[row] = end;
  }
}
