import { testKilledPushes } from "./push.ts";

testKilledPushes("a push whose CLI is killed", async ({ cliPid }) => {
  if (cliPid) process.kill(-cliPid, "SIGKILL");
}, { keepsStatistics: false });
