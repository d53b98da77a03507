/** What is longer is a list, and comes in as many texts as it can have lengths. Characters. */
const longestText = 8192;

/**
 * Names the statements that come again and again, so that each connection has them parsed and
 * planned once: of a look at one app, planning was more than half (ADR 37). PostgreSQL keeps a named
 * statement for as long as the connection lasts, so only the first `most` that came `after` times
 * get a name. The others have none: ''.
 */
export function nameStatements({ after = 5, most = 150 } = {}): (query: { sql: string }) => string {
  const names = new Map<string, string>();
  let counts = new Map<string, number>();
  return ({ sql }) => {
    const name = names.get(sql);
    if (name !== undefined) return name;
    if (names.size === most || sql.length > longestText) return '';
    const count = (counts.get(sql) ?? 0) + 1;
    if (count < after) {
      // Texts that never come again are not kept for ever.
      if (counts.size === 10 * most) counts = new Map();
      counts.set(sql, count);
      return '';
    }
    counts.delete(sql);
    names.set(sql, `s${names.size + 1}`);
    return names.get(sql)!;
  };
}
