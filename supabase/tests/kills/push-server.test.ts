import { testKilledPushes } from "./push.ts";

testKilledPushes("a push whose server crashes", async ({ server }) => await server.crash(), { keepsStatistics: false });
