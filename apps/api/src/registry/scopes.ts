/** What a Docker client asks a token for. */
export interface RequestedScope {
  /** `tenant/name` */
  name: string;
  /** First part of the name. */
  tenant: string;
  actions: ('pull' | 'push')[];
}

/** As the registry spells names; a dot never stands alone, so that no name climbs out of its tenant. */
const part = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const repository = new RegExp(`^${part}(?:/${part})+$`);

/**
 * Reads `scope` parameters, each with one or more `repository:<name>:<actions>` separated by
 * spaces. What is no repository, or asks for nothing that is ever given (delete, *), is left out, as
 * the specification wants: the client learns from the token what it got.
 */
export function readScopes(scope: string | readonly string[] | undefined): RequestedScope[] {
  const given = scope === undefined ? [] : typeof scope === 'string' ? [scope] : scope;
  return given
    .flatMap((one) => one.split(' '))
    .slice(0, 20)
    .flatMap((one) => {
      const [, name = '', wanted = ''] = /^repository:(.+):([a-z,*]*)$/.exec(one) ?? [];
      const actions = (['pull', 'push'] as const).filter((action) =>
        wanted.split(',').includes(action),
      );
      const slash = name.indexOf('/');
      if (slash < 1 || name.length > 255 || !repository.test(name) || actions.length === 0)
        return [];
      return [{ name, tenant: name.slice(0, slash), actions }];
    });
}
