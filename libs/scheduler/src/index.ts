/**
 * Placement: which node runs which instance. Start reading at `schedule.ts`; a hard rule is an
 * object in `rules.ts`, `shelf.ts` says what suits a node best, `zones.ts` spreads, `refusal.ts` puts
 * "no" into words, and `preempt.ts` makes room where priority allows it.
 */
export * from './model.ts';
export { allocatable, amountsOf, fits } from './capacity.ts';
export { schedule } from './schedule.ts';
export { preempt } from './preempt.ts';
export { rebalance } from './rebalance.ts';
export type { Movable, Move } from './rebalance.ts';
