import type { Room } from './capacity.ts';
import { resourceNames } from './model.ts';
import type { Amounts, NearestMiss, Refusal, ResourceName, RuleName, Want } from './model.ts';
import { rules } from './rules.ts';

const units: Record<ResourceName, (amount: number) => string> = {
  cpuMillis: (amount) => `${amount / 1000} CPU`,
  memoryMiB: (amount) => `${amount} MiB of memory`,
  diskMiB: (amount) => `${amount} MiB of disk`,
  instances: (amount) => `${amount} ${amount === 1 ? 'place' : 'places'} for instances`,
};

/** Says why no node takes what is like `want`: looks at every node once. */
export function explainRefusal(
  want: Want,
  needs: Amounts,
  rooms: readonly Room[],
): Omit<Refusal, 'want'> {
  const turnedAway: Partial<Record<RuleName, number>> = {};
  let nearest: { miss: NearestMiss; lack: number } | null = null;
  for (const room of rooms) {
    const rule = rules.find((each) => !each.check(want, needs, room));
    if (!rule) continue;
    turnedAway[rule.name] = (turnedAway[rule.name] ?? 0) + 1;
    if (rule.name !== 'capacity') continue;
    const miss = missOf(needs, room);
    if (nearest === null || miss.lack < nearest.lack) nearest = miss;
  }
  const rule = nearest ? 'capacity' : mostFrequent(turnedAway);
  return {
    rule,
    message: describe(rule, turnedAway, nearest?.miss ?? null),
    turnedAway,
    nearestMiss: nearest?.miss ?? null,
  };
}

/** The resource that a full room lacks most of, measured by the room's whole. */
function missOf(needs: Amounts, room: Room): { miss: NearestMiss; lack: number } {
  let worst: ResourceName = 'memoryMiB';
  let lack = -Infinity;
  for (const name of resourceNames) {
    const lacking = (needs[name] - room.free[name]) / Math.max(1, room.total[name]);
    if (needs[name] > room.free[name] && lacking > lack) {
      worst = name;
      lack = lacking;
    }
  }
  const free = Math.max(0, room.free[worst]);
  return { miss: { node: room.node.id, resource: worst, needs: needs[worst], free }, lack };
}

function mostFrequent(turnedAway: Partial<Record<RuleName, number>>): RuleName {
  let most: RuleName = 'ready';
  for (const { name } of rules) {
    if ((turnedAway[name] ?? 0) > (turnedAway[most] ?? 0)) most = name;
  }
  return most;
}

function describe(
  rule: RuleName,
  turnedAway: Partial<Record<RuleName, number>>,
  miss: NearestMiss | null,
): string {
  const counted = rules.flatMap(({ name, turnsAway }) => {
    const count = turnedAway[name] ?? 0;
    if (count === 0) return [];
    return [count === 1 ? `1 node ${turnsAway.one}` : `${count} nodes ${turnsAway.many}`];
  });
  if (counted.length === 0) return 'there is no node in the fleet';
  const why = counted.join(', ');
  if (miss) {
    const unit = units[miss.resource];
    return `needs ${unit(miss.needs)}, ${unit(miss.free)} free on the best node (${why})`;
  }
  const helps = rules.find(({ name }) => name === rule)?.helps ?? 'another node';
  return `no node can take it: ${why}; it needs ${helps}`;
}
