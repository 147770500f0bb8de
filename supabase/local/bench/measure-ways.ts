import { setTimeout as sleep } from "node:timers/promises";
import { createUsers, runBareLoad, runFunction, runPlanScript, type Stage } from "./measure-users.ts";
import { defaultOrgId } from "./shared.ts";
import { startTraffic } from "./user-traffic.ts";

/** How users get their organization while others sign up and are deleted; each resolves with its seconds. */
export const ways = [
  { name: "bare load, ten at a time", run: (stage: Stage) => runBareLoad(stage, 10) },
  { name: "the plan's script", run: (stage: Stage) => runPlanScript(stage, 1) },
  { name: "the same, ten at a time", run: (stage: Stage) => runPlanScript(stage, 10) },
  {
    name: "the function, ten at a time",
    run: async (stage: Stage) =>
      (await runFunction(stage, { concurrency: 10, max_users: 1_000_000, max_seconds: 130 })).seconds,
  },
  {
    name: "the function, its mode sql",
    run: async (stage: Stage) => (await runFunction(stage, { mode: "sql" })).seconds,
  },
] as const;

export type Way = (typeof ways)[number];

export interface Outcome {
  seconds: number;
  requests: number;
  /** Users without their organization who were there before, or signed up a second or more before the end; those of lost updates apart. */
  missed: number;
  /** Users whose update the Auth server answered with 200 and who do not have it. */
  lost: number;
}

/** Lets one way go through so many users, while somebody signs up, two are deleted, and of every hundredth the first update is lost. */
export async function measureWay(stage: Stage, users: number, way: Way): Promise<Outcome> {
  const { sql, standIn } = stage;
  await createUsers(stage, users);
  const before = (await sql`select id from auth.users order by id`).map((row) => row["id"] as string);
  standIn.lose();
  const traffic = startTraffic(standIn.apiUrl, standIn.secretKey, before);
  await sleep(500);
  const seconds = await way.run(stage);
  const ended = performance.now();
  const { requests, lost } = await standIn.readCounts();
  const late = (await traffic.stop()).filter(({ at }) => at > ended - 1000).map(({ id }) => id);
  const without = (await sql`
    select id from auth.users
    where raw_app_meta_data ->> 'org_id' is distinct from ${defaultOrgId} and id <> all (${late}::uuid[])
  `).map((row) => row["id"] as string);
  const stillLost = without.filter((id) => lost.includes(id)).length;
  return { seconds, requests, missed: without.length - stillLost, lost: stillLost };
}
