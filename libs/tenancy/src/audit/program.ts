/** A program's name is cut here: it is somebody's input. */
const longestName = 64;

/**
 * What the audit log says of a command: the program's name and how many arguments it got. Arguments
 * carry passwords and tokens more often than anybody admits, and the log can never forget them.
 */
export function programOf(command: readonly string[]): { program: string; arguments: number } {
  const name = (command[0] ?? '').split('/').at(-1) ?? '';
  return {
    program: name.replaceAll(/[^\x21-\x7e]/g, '?').slice(0, longestName),
    arguments: Math.max(0, command.length - 1),
  };
}
