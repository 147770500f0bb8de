import type { Obstacle } from "./obstacle.ts";
import { columnObstacles } from "./obstacles-of-columns.ts";
import { organizationObstacles } from "./obstacles-of-organizations.ts";
import { rowObstacles } from "./obstacles-of-rows.ts";
import { sourceObstacles } from "./obstacles-of-sources.ts";
import { tableObstacles } from "./obstacles-of-tables.ts";
import { updateObstacles } from "./obstacles-of-updates.ts";

/** All that the push refuses, by name. */
export const obstacles: Record<string, Obstacle> = {
  ...tableObstacles,
  ...columnObstacles,
  ...sourceObstacles,
  ...rowObstacles,
  ...updateObstacles,
  ...organizationObstacles,
};
