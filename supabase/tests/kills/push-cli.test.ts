import { testKilledPushes } from "./push.ts";

testKilledPushes("a push whose CLI is killed", async ({ cliPid }) => {
  try {
    if (cliPid) process.kill(-cliPid, "SIGKILL");
  } catch (error) {
    // It may have ended just now.
    if ((error as { code?: string }).code !== "ESRCH") throw error;
  }
}, { keepsStatistics: false });
