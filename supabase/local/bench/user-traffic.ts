import { setTimeout as sleep } from "node:timers/promises";

/** A sign-up and two deletions, so many milliseconds after the last ones. */
const pause = 50;

export interface Traffic {
  /** Resolves with the users who signed up, and when each had done so. */
  stop(): Promise<{ id: string; at: number }[]>;
}

/** What goes on at an Auth server: somebody signs up, and of the users of before two are deleted, again and again. */
export function startTraffic(apiUrl: string, key: string, userIds: string[]): Traffic {
  const signedUp: { id: string; at: number }[] = [];
  let stopped = false;
  const request = async (method: string, path: string, body?: unknown): Promise<Record<string, unknown>> => {
    const response = await fetch(`${apiUrl}/auth/v1${path}`, {
      method,
      headers: { "apikey": key, "authorization": `Bearer ${key}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const answer = (await response.json()) as Record<string, unknown>;
    if (!response.ok) throw new Error(`${method} ${path}: HTTP ${response.status} ${JSON.stringify(answer)}`);
    return answer;
  };
  // From all over the list, and never one twice.
  const leaving = userIds.filter((_, number) => number % 7 === 0).sort((a, b) =>
    a.slice(-12).localeCompare(b.slice(-12))
  );
  const working = (async () => {
    while (!stopped) {
      const email = `${crypto.randomUUID()}@example.com`;
      const { id } = await request("POST", "/signup", { email, password: "correct horse battery staple" });
      signedUp.push({ id: id as string, at: performance.now() });
      for (const gone of leaving.splice(0, 2)) await request("DELETE", `/admin/users/${gone}`);
      await sleep(pause);
    }
    return signedUp;
  })();
  return {
    stop: async () => {
      stopped = true;
      return await working;
    },
  };
}
