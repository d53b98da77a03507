/**
 * Which nodes to believe in. Pure: silence is an age, and what to make of it depends on how many
 * are silent at once.
 */

/** Silent for this long: no new instances, milliseconds. Agents beat every 2 s. */
export const suspectMs = 10_000;
/** Silent for this long: its instances are replaced elsewhere, milliseconds. */
export const lostMs = 30_000;
/** A host that joined gets instances only when every host with an edge has had time to hear where it is, milliseconds. */
export const settleMs = 8_000;

export interface NodeView {
  readonly id: string;
  readonly state: 'joining' | 'ready' | 'suspect' | 'lost';
  /** Milliseconds since its last heartbeat; null when it never had one. */
  readonly silentMs: number | null;
  /** Milliseconds since it joined by a token; null when it did not. */
  readonly joinedMs: number | null;
}

export interface NodeStep {
  readonly node: string;
  readonly to: 'ready' | 'suspect' | 'lost';
  readonly why: string;
}

/** For how long this replica has been able to judge, milliseconds; it must be so for as long as a silence lasts. */
export interface Hearing {
  /** Since it has been able to hear nodes; null when it cannot: who has not listened cannot call others silent. */
  readonly listeningMs: number | null;
  /** Since it last found the fleet cut off, or began to listen; null when it cannot hear. */
  readonly wholeMs: number | null;
}

export interface NodesPlan {
  readonly steps: readonly NodeStep[];
  /** So many are silent at once that it is we who are cut off. */
  readonly cutOff: boolean;
}

/**
 * The changes of state that the nodes' silence justifies.
 *
 * When all nodes that were not lost before, or more than half of two or more, are silent at once,
 * it is we who are cut off: none is called lost and nothing is moved. They become suspect all the
 * same, for a new instance placed there could not be heard of. Nodes do not come back all at once:
 * when enough are, the others are given as long again as a node that falls silent alone.
 */
export function planNodes(nodes: readonly NodeView[], hearing: Hearing): NodesPlan {
  const believed = nodes.filter(({ state }) => state === 'ready' || state === 'suspect');
  const silent = believed.filter((node) => isSilent(node, suspectMs));
  const cutOff =
    silent.length > 0 && (silent.length === believed.length || silent.length * 2 > believed.length);
  const steps: NodeStep[] = [];
  for (const node of nodes) {
    const step = planNode(node, hearing, cutOff);
    if (step) steps.push(step);
  }
  return { steps, cutOff };
}

function planNode(node: NodeView, hearing: Hearing, cutOff: boolean): NodeStep | null {
  if (node.silentMs === null) return null;
  if (!isSilent(node, suspectMs)) {
    if (node.state === 'ready') return null;
    if (node.state === 'joining' && node.joinedMs !== null && node.joinedMs < settleMs) return null;
    return { node: node.id, to: 'ready', why: 'it reports' };
  }
  const { listeningMs, wholeMs } = hearing;
  const why = `silent for ${Math.round(node.silentMs / 1000)} s`;
  if (node.state === 'ready' && listeningMs !== null && listeningMs >= suspectMs) {
    return { node: node.id, to: 'suspect', why };
  }
  const certain = !cutOff && wholeMs !== null && wholeMs >= lostMs;
  if (node.state === 'suspect' && certain && isSilent(node, lostMs)) {
    return { node: node.id, to: 'lost', why };
  }
  return null;
}

function isSilent(node: NodeView, milliseconds: number): boolean {
  return node.silentMs === null || node.silentMs >= milliseconds;
}
