import { describe, expect, test } from "vitest";
import { createThrottle } from "../../functions/update-user-org-metadata/throttle.ts";

/** A server whose answers are given by hand. */
function createServer(most: number) {
  const throttle = createThrottle(most);
  const open: ((well: boolean) => void)[] = [];
  const send = () => throttle.send(() => new Promise<boolean>((resolve) => open.push(resolve)), (well) => !well);
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  const answer = async (well: boolean) => {
    await settle();
    open.shift()?.(well);
    await settle();
  };
  return { throttle, open, send, answer, settle };
}

describe("the throttle", () => {
  test("lets as many requests through as it was told, and the next when one is answered", async () => {
    const { open, send, answer, settle } = createServer(3);
    for (let request = 0; request < 5; request++) void send();
    await settle();
    expect(open.length).toBe(3);
    await answer(true);
    expect(open.length).toBe(3);
    await answer(true);
    await answer(true);
    expect(open.length).toBe(2);
  });

  test("halves for trouble, once for all the requests that were under way", async () => {
    const { throttle, open, send, answer } = createServer(8);
    for (let request = 0; request < 20; request++) void send();
    for (let request = 0; request < 8; request++) await answer(false);
    expect(throttle.limit).toBe(4);
    expect(open.length).toBe(4);
    for (let request = 0; request < 4; request++) await answer(false);
    expect(throttle.limit).toBe(2);
  });

  test("never falls below one, and recovers one by one to where it was", async () => {
    const { throttle, send, answer } = createServer(4);
    for (let round = 0; round < 10; round++) {
      void send();
      await answer(false);
    }
    expect(throttle.limit).toBe(1);
    const limits = new Set<number>();
    for (let round = 0; round < 30; round++) {
      void send();
      await answer(true);
      limits.add(throttle.limit);
    }
    expect([...limits]).toEqual([2, 3, 4]);
  });

  test("gives its place back when a request throws", async () => {
    const throttle = createThrottle(1);
    const broken = async () => {
      throw new Error("broken");
    };
    await expect(throttle.send(broken, () => false)).rejects.toThrow("broken");
    expect(await throttle.send(async () => "through", () => false)).toBe("through");
  });
});
