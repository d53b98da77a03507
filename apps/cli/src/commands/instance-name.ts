import { CliError, usageError } from '../errors.ts';
import type { GraphqlClient } from '../graphql/client.ts';
import { instances } from '../graphql/operations.ts';

const whole = /^i[a-z0-9]{12}$/;
/** What a beginning may fit before we only count them. */
const shown = 5;

/** The id that `text` is, or is the beginning of: instances are named as commits are. */
export async function instanceId(
  client: GraphqlClient,
  at: { tenant: string; app: string },
  text: string,
): Promise<string> {
  if (whole.test(text)) return text;
  const known = await client.all(
    instances,
    { ...at, includeGone: true },
    (result) => result.app.instances,
  );
  const ids = known.map(({ id }) => id).filter((id) => text !== '' && id.startsWith(text));
  const [first, ...others] = ids;
  if (first === undefined) {
    throw new CliError('NOT_FOUND', `${at.app} has no instance "${text}"`, {
      hint: `See \`bulkhead ps --all --app ${at.app}\`.`,
    });
  }
  if (others.length === 0) return first;
  const some = ids.slice(0, shown).join(', ');
  throw usageError(
    `"${text}" is the beginning of ${String(ids.length)} instances`,
    `Write more of it: ${some}${ids.length > shown ? ', ...' : ''}`,
  );
}
