/**
 * Placement: which node runs which instance. Start reading at `schedule.ts`; a hard rule is an
 * object in `rules.ts`, a preference a term in `score.ts`, and `refusal.ts` puts "no" into words.
 */
export * from './model.ts';
export { allocatable, amountsOf, fits } from './capacity.ts';
export { schedule } from './schedule.ts';
