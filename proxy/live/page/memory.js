// What the browser remembers: for this tab, or for good. Where it is told to remember nothing, the page goes on without.

class Memory {
  constructor(name) {
    this.name = name;
    this.own = new Map();
  }

  get(key) {
    try {
      return globalThis[this.name].getItem(key) ?? "";
    } catch {
      return this.own.get(key) ?? "";
    }
  }

  /** An empty text is forgotten. */
  set(key, text) {
    this.own.set(key, text);
    try {
      if (text) globalThis[this.name].setItem(key, text);
      else globalThis[this.name].removeItem(key);
    } catch {
      // this page alone knows it
    }
  }
}

export const tab = new Memory("sessionStorage");
export const browser = new Memory("localStorage");
