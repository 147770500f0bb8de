import { expect, test } from "vitest";
import type { Now } from "../../cli/push-now.ts";
import { watchPush } from "../../cli/push-watch.ts";

test("a connection that fails is told, and tried again until the caller has seen enough", async () => {
  const answers: (Now | undefined | Error)[] = [
    new Error("connection refused"),
    undefined,
    { status: "running" } as Now,
    { status: "done" } as Now,
    { status: "running" } as Now,
  ];
  const seen: string[] = [];
  const reader = {
    read: async () => {
      const answer = answers.shift();
      if (answer instanceof Error) throw answer;
      return answer;
    },
    close: async () => {},
  };
  const watch = watchPush(
    reader,
    { show: ({ status }) => seen.push(status), silent: (reason) => seen.push(reason) },
    new AbortController().signal,
    ({ status }) => status === "done",
    async () => {},
  );
  await watch.ended;
  expect(seen).toEqual(["connection refused", "running", "done"]);
  expect(watch.last()?.status).toBe("done");
});

test("it ends when it is told to, without another word", async () => {
  const over = new AbortController();
  const seen: string[] = [];
  const watch = watchPush(
    {
      read: async () => {
        over.abort();
        return { status: "running" } as Now;
      },
      close: async () => {},
    },
    { show: ({ status }) => seen.push(status), silent: (reason) => seen.push(reason) },
    over.signal,
  );
  await watch.ended;
  expect(seen).toEqual([]);
});
