/**
 * Placement: which node runs which instance. Start reading at `schedule.ts`; a hard rule is an
 * object in `rules.ts`, `shelf.ts` says what suits a node best, `zones.ts` spreads, `refusal.ts` puts
 * "no" into words, `preempt.ts` makes room where priority allows it, and `rebalance.ts` moves what
 * stands. So that a thousand wants that are unlike each other do not ask ten thousand nodes each,
 * `kinds.ts` puts nodes that are alike together and `forest.ts` searches among them.
 */
export * from './model.ts';
export { allocatable, amountsOf, fits } from './capacity.ts';
export { schedule } from './schedule.ts';
export { preempt } from './preempt.ts';
export { rebalance } from './rebalance.ts';
export type { Movable, Move } from './rebalance.ts';
