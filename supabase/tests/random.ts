/** Numbers that look random and are the same for the same seed, so that a failure can be repeated. */
export interface Random {
  /** A whole number from 0 up to, not including, limit. */
  below(limit: number): number;
  pick<T>(items: readonly T[]): T;
  shuffle<T>(items: readonly T[]): T[];
  uuid(): string;
}

/** Mulberry32: 32 bits of state are plenty for test data. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const random: Random = {
    below: (limit) => Math.floor(next() * limit),
    pick: (items) => {
      const item = items[random.below(items.length)];
      if (item === undefined) throw new Error("Cannot pick from nothing");
      return item;
    },
    shuffle: (items) => {
      const shuffled = [...items];
      for (let last = shuffled.length - 1; last > 0; last--) {
        const other = random.below(last + 1);
        [shuffled[last], shuffled[other]] = [shuffled[other] as never, shuffled[last] as never];
      }
      return shuffled;
    },
    uuid: () => {
      const hex = Array.from({ length: 32 }, () => random.below(16).toString(16)).join("");
      return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`;
    },
  };
  return random;
}

/** A generator of its own for each purpose, so that what is drawn for one does not change what is drawn for another. */
export const createStream = (seed: number, purpose: string): Random => createRandom(hash(`${seed} ${purpose}`));

/** FNV-1a: the same number for the same text, and another for almost every other. */
export function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return value;
}

/** In CI a run is the same each time. */
const seedOfCi = 20250110;

/** The seed of this run, printed so that the run can be repeated: TEST_SEED, else a fixed one in CI, else a new one. */
export function chooseSeed(purpose: string): number {
  const chosen = process.env["TEST_SEED"] ?? (process.env["CI"] ? seedOfCi : Math.floor(Math.random() * 2 ** 31));
  const seed = Number(chosen);
  console.log(`${purpose}: TEST_SEED=${seed}`);
  return seed;
}
