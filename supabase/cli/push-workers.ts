/** Sessions beside a push that share its backfill and its validations. */
import { setTimeout as sleep } from "node:timers/promises";
import { networkReason } from "./command-line.ts";
import { closeLive, connectLive } from "./live-database.ts";
import { notThereYet } from "./push-now.ts";

const mostWorkers = 16;

/** How long a session works before it looks if it is still wanted, so that its way to the server counts once and not for each batch. */
const turnMs = 1000;

const turn = `
  do $$
  declare
    ends_at constant timestamptz := clock_timestamp() + interval '${turnMs} milliseconds';
  begin
    while clock_timestamp() < ends_at and org_migration.help() loop commit; end loop;
  end $$
`;

/** Takes `--workers N` out of the options, since the CLI does not know it. Throws where N is no number from 1 to 16. */
export function takeWorkers(parameters: string[]): { workers: number; rest: string[] } {
  const at = parameters.findIndex((parameter) => /^--workers(=|$)/.test(parameter));
  if (at < 0) return { workers: 1, rest: parameters };
  const inline = parameters[at]?.startsWith("--workers=");
  const given = inline ? parameters[at]?.slice("--workers=".length) : parameters[at + 1];
  const workers = /^\d{1,2}$/.test(given ?? "") ? Number(given) : 0;
  if (workers < 1 || workers > mostWorkers) {
    throw new RangeError(`--workers ${given ?? ""}: give a number from 1 to ${mostWorkers}`);
  }
  return { workers, rest: parameters.toSpliced(at, inline ? 1 : 2) };
}

/** Works on what a push shares, turn after turn, while there is something, until the signal is aborted; a turn under way ends first. */
async function help(url: string, signal: AbortSignal, failed: (reason: string) => void): Promise<void> {
  const sql = connectLive(url, { connection: { application_name: "npm run push, worker" } });
  let isNew = true;
  while (!signal.aborted) {
    let pause = 0;
    try {
      // As in the migrations: a validation takes as long as it takes, but ends with its client. No pooler need know of it.
      if (isNew) {
        await sql`
          select set_config('statement_timeout', '0', false), set_config('client_connection_check_interval', '1s', false)
        `;
        isNew = false;
      }
      const began = performance.now();
      await sql.unsafe(turn);
      // It ended before its time: there was nothing to share.
      if (performance.now() - began < turnMs) pause = 50;
    } catch (error) {
      isNew = true;
      pause = 1000;
      if (!notThereYet.includes((error as { code?: string }).code ?? "")) failed(networkReason(error));
    }
    if (pause > 0) await sleep(pause, undefined, { signal }).catch(() => {});
  }
  await closeLive(sql);
}

/** Opens so many sessions that help; resolves when all have ended. */
export async function startWorkers(
  count: number,
  url: string,
  signal: AbortSignal,
  failed: (reason: string) => void,
): Promise<void> {
  await Promise.all(Array.from({ length: count }, async () => await help(url, signal, failed)));
}
