import fc from "fast-check";
import type { PostgresMajor } from "../../local/postgres.ts";
import { allFeatures, allObstacles, type Draw, weightOf } from "./generate.ts";

/** Three schemas of ten have an obstacle; each obstacle, and each feature in those without, has its turn. */
const hasObstacle = (number: number): boolean => [2, 5, 8].includes(number % 10);
const turnOf = (number: number): number =>
  Array.from({ length: number }, (_, earlier) => earlier).filter((earlier) =>
    hasObstacle(earlier) === hasObstacle(number)
  ).length;

/** True in so many of a hundred cases. Shrinks to false, which needs a weight for that, be it one in a hundred million. */
const chance = (percent: number): fc.Arbitrary<boolean> =>
  fc.oneof(
    { withCrossShrink: true },
    { weight: (100 - percent) * 1_000_000 || 1, arbitrary: fc.constant(false) },
    { weight: percent * 1_000_000, arbitrary: fc.constant(true) },
  );

/**
 * What the schema of this number is drawn from: the feature whose turn it is, or the obstacle, and others by their weights.
 * Shrinking takes the features away one by one.
 */
export function drawSchema(seed: number, number: number, major: PostgresMajor): fc.Arbitrary<Draw> {
  const turn = turnOf(number);
  const kinds = allObstacles(major);
  const names = allFeatures(major);
  const obstacle = hasObstacle(number) ? kinds[turn % kinds.length] : undefined;
  const forced = obstacle === undefined ? names[turn % names.length] : undefined;
  const features = fc.tuple(...names.map((name) => chance(name === forced ? 100 : weightOf(name))));
  return fc.record({
    seed: fc.constant(seed + number * 7919),
    forced: fc.constant(forced),
    features: features.map((drawn) => names.filter((_, index) => drawn[index])),
    tables: fc.integer({ min: 2, max: 5 }),
    obstacle: fc.constant(obstacle),
    rollBack: fc.constant(turn % 4 === 0),
  });
}
