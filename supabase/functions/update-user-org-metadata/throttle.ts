/**
 * How many requests are under way: as many as allowed at first, half as many each time that the server is in trouble, one more
 * for every so many answers once it is well again (additive increase, multiplicative decrease, RFC 5681).
 */
export interface Throttle {
  /** Sends when there is room, and judges by the answer how the server is; null: it says nothing of that. */
  send<T>(request: () => Promise<T>, isTrouble: (answer: T) => boolean | null): Promise<T>;
  /** How many may be under way now. */
  readonly limit: number;
}

export function createThrottle(most: number): Throttle {
  let limit = most;
  let underWay = 0;
  /** Counts the halvings: requests sent before the last one are of the same trouble and do not halve again. */
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
