import { RuntimeError } from './runtime.ts';

export interface ContainerUser {
  uid: number;
  gid: number;
  additionalGids: number[];
  home: string;
}

/**
 * The user that an image asks for ("", "name", "name:group", "1000", "1000:1000"), looked up in the
 * image's own passwd and group files, as Docker does. A name that is not there is the tenant's mistake.
 */
export function resolveUser(
  wanted: string,
  readFile: (path: string) => string | null,
): ContainerUser {
  const [userPart = '', groupPart = ''] = wanted.split(':', 2);
  const passwd = parseTable(readFile('/etc/passwd'));
  const groups = parseTable(readFile('/etc/group'));
  const name = userPart === '' ? '0' : userPart;
  const entry =
    passwd.find((fields) => fields[0] === name) ?? passwd.find((fields) => fields[2] === name);
  const uid = number(entry?.[2] ?? name);
  if (uid === null)
    throw new RuntimeError(
      'start-failed',
      `The image runs as user "${userPart}", which its /etc/passwd does not have.`,
    );

  let gid = number(entry?.[3] ?? '0') ?? 0;
  if (groupPart !== '') {
    const group = groups.find((fields) => fields[0] === groupPart);
    const found = number(group?.[2] ?? groupPart);
    if (found === null)
      throw new RuntimeError(
        'start-failed',
        `The image runs as group "${groupPart}", which its /etc/group does not have.`,
      );
    gid = found;
  }
  // A group that is named alone replaces the user's others.
  const additional =
    entry && groupPart === ''
      ? groups
          .filter((fields) => fields[3]?.split(',').includes(entry[0] ?? ''))
          .map((fields) => number(fields[2] ?? ''))
      : [];
  return {
    uid,
    gid,
    // The main group is among them: else a process that drops it could get at files that deny the group (CVE-2022-36109).
    additionalGids: [...new Set([gid, ...additional.filter((id) => id !== null)])].slice(0, 64),
    home: entry?.[5]?.startsWith('/') ? entry[5] : '/',
  };
}

/** An id that a container's range can hold. */
function number(text: string): number | null {
  if (!/^\d{1,5}$/.test(text)) return null;
  const value = Number(text);
  return value <= 65_535 ? value : null;
}

const parseTable = (text: string | null): string[][] =>
  (text ?? '')
    .split('\n')
    .flatMap((line) => (line === '' || line.startsWith('#') ? [] : [line.split(':')]));
