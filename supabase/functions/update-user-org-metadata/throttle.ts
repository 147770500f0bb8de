/**
 * Limits how many requests are under way. The limit starts at the most allowed, halves each time the server is in trouble, and
 * grows by one for as many good answers as it allows requests (additive increase, multiplicative decrease, RFC 5681).
 */
export interface Throttle {
  /** Sends when there is room. The answer tells whether the server is in trouble; null: it does not tell. */
  send<T>(request: () => Promise<T>, isTrouble: (answer: T) => boolean | null): Promise<T>;
  /** How many may be under way now. */
  readonly limit: number;
}

export function createThrottle(most: number): Throttle {
  let limit = most;
  let underWay = 0;
  /** Counts the halvings: requests sent before the last one met the same trouble, and do not halve the limit again. */
  let halvings = 0;
  const waiting: (() => void)[] = [];

  const enter = async () => {
    if (underWay >= Math.floor(limit)) await new Promise<void>((resolve) => waiting.push(resolve));
    else underWay++;
  };
  const leave = () => {
    underWay--;
    while (waiting.length > 0 && underWay < Math.floor(limit)) {
      underWay++;
      waiting.shift()?.();
    }
  };

  return {
    get limit() {
      return Math.floor(limit);
    },
    send: async (request, isTrouble) => {
      await enter();
      const before = halvings;
      try {
        const answer = await request();
        const trouble = isTrouble(answer);
        if (trouble === false) limit = Math.min(most, limit + 1 / limit);
        if (trouble && before === halvings) {
          limit = Math.max(1, limit / 2);
          halvings++;
        }
        return answer;
      } finally {
        leave();
      }
    },
  };
}
