/**
 * Who may say and hear what on NATS. Allow-lists only: what is not named here is refused by the
 * server, and deny rules have been bypassed in the past. Kept apart from the package's main entry,
 * for it is needed where users are made and nowhere else.
 *
 * A node and an edge may use exactly one consumer, by its exact name and filter: a wildcard in the
 * name's place would let one node replace another's consumer and read its keys.
 */
import { encodeUser, fromPublic, fromSeed, type User } from '@nats-io/jwt';
import { desiredConsumer, inboxPrefix, streams, subjects } from './subjects.ts';

export interface NatsPermissions {
  publish: readonly string[];
  subscribe: readonly string[];
}

/** The API owns the streams and everything in the account; it may do everything there. */
export const apiPermissions = (): NatsPermissions => ({ publish: ['>'], subscribe: ['>'] });

/** A node reads what it shall run and reports on itself. Inbox: `_INBOX_<node>`. */
export function nodePermissions(node: string): NatsPermissions {
  assertToken(node);
  return {
    publish: [
      ...ownConsumer(streams.desiredBucket, desiredConsumer(node), subjects.desiredOfNode(node)),
      subjects.report(node, '*'),
      subjects.heartbeat(node),
      subjects.logs('*', '*', node, '*'),
    ],
    subscribe: [`${inboxPrefix(node)}.>`, subjects.dial(node)],
  };
}

/** An edge reads all routes and says what it serves. Inbox: `_INBOX_<edge>`. */
export function edgePermissions(edge: string): NatsPermissions {
  assertToken(edge);
  return {
    publish: [
      ...ownConsumer(streams.routesBucket, `routes-${edge}`, `$KV.${streams.routesBucket}.>`),
      subjects.edgeApplied(edge),
      subjects.edgeHeartbeat(edge),
      subjects.edgeTraffic(edge),
    ],
    subscribe: [`${inboxPrefix(edge)}.>`],
  };
}

/** The JetStream requests for one consumer with a pinned name and filter; it needs no acks. */
function ownConsumer(bucket: string, consumer: string, filter: string): string[] {
  const stream = `KV_${bucket}`;
  return [
    `$JS.API.CONSUMER.CREATE.${stream}.${consumer}.${filter}`,
    `$JS.API.CONSUMER.INFO.${stream}.${consumer}`,
    `$JS.API.CONSUMER.DELETE.${stream}.${consumer}`,
    `$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`,
  ];
}

/** An id becomes a part of subjects: a dot or a wildcard in it would widen what its owner may do. */
function assertToken(id: string): void {
  if (!/^[a-zA-Z0-9_-]{1,64}$/.test(id))
    throw new Error(`"${id}" cannot be part of a NATS subject`);
}

/** What a user's JWT grants. */
export const grantOf = ({ publish, subscribe }: NatsPermissions): Partial<User> => ({
  pub: { allow: [...publish] },
  sub: { allow: [...subscribe] },
  allowed_connection_types: ['STANDARD'],
  bearer_token: false,
});

/**
 * A JWT for the user with this public nkey, whose seed stays with the user. `signer` is the seed of a
 * signing key of the account, `account` the account's public nkey.
 */
export function issueUserJwt(
  issuer: { readonly signer: string; readonly account: string },
  user: {
    readonly name: string;
    readonly publicKey: string;
    readonly permissions: NatsPermissions;
  },
): Promise<string> {
  return encodeUser(
    user.name,
    fromPublic(user.publicKey),
    fromSeed(new TextEncoder().encode(issuer.signer)),
    { ...grantOf(user.permissions), issuer_account: issuer.account },
  );
}
