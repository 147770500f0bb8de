import type { JobPorts, JobRequest } from "./job.ts";
import type { PipelineEnd } from "./pipeline.ts";
import { addDone, type Progress } from "./progress.ts";
import type { Stop } from "./timing.ts";

/**
 * Works through the users of a run without the Auth server: the database claims, writes and settles a page in one statement, so
 * that a call that ends between two pages leaves nothing pending. Rounds are as in the pipeline.
 */
export async function writeInSql(
  { pageSize, maxUsers }: Pick<JobRequest, "pageSize" | "maxUsers">,
  { users, timing }: Pick<JobPorts, "users" | "timing">,
  progress: Progress,
  { deadline, signal }: Stop,
): Promise<PipelineEnd> {
  let pages = 0;
  for (let room = maxUsers; room > 0 && timing.now() < deadline && !signal.aborted;) {
    const { claimed, settled, failed } = await users.write(progress.runId, Math.min(pageSize, room));
    if (claimed === 0) {
      if (await users.endRound(progress.runId)) break;
      continue;
    }
    pages++;
    room -= claimed;
    addDone(progress, settled, failed);
  }
  return { pages, refusal: null };
}
