import type { Type } from '@nestjs/common';
import { ArgsType, Field, Int, ObjectType } from '@nestjs/graphql';
import type { Page } from '@bulkhead/tenancy';

/** Arguments of every list. */
@ArgsType()
export class PageArguments {
  @Field(() => Int, { nullable: true, description: 'How many at most: 1 to 200; 50 when absent.' })
  first?: number | null;

  @Field(() => String, {
    nullable: true,
    description: 'Go on after this cursor of an earlier page.',
  })
  after?: string | null;
}

@ObjectType({ description: 'Where a page lies in its list.' })
export class PageInfo {
  @Field(() => Boolean, { description: 'Whether more follow: ask again with `after: endCursor`.' })
  hasNextPage: boolean;

  @Field(() => Boolean, { description: 'Whether some come before.' })
  hasPreviousPage: boolean;

  @Field(() => String, { nullable: true, description: 'Cursor of the first item of this page.' })
  startCursor: string | null;

  @Field(() => String, { nullable: true, description: 'Cursor of the last item of this page.' })
  endCursor: string | null;
}

/** Makes `<name>Connection` and `<name>Edge` for a type, as Relay wants them. */
export function connectionOf(node: Type<unknown>, name: string): Type<Page<unknown>> {
  @ObjectType(`${name}Edge`, { description: `One item of a ${name}Connection.` })
  class Edge {
    @Field(() => String, { description: 'Marks the place of this item in the list.' })
    cursor: string;

    @Field(() => node, { description: 'The item itself.' })
    node: unknown;
  }

  @ObjectType(`${name}Connection`, { description: `One page of a list of ${name}.` })
  class Connection {
    @Field(() => [Edge], { description: 'The items of this page with their cursors.' })
    edges: Page<unknown>['edges'];

    @Field(() => [node], { description: 'The items of this page.' })
    nodes: Page<unknown>['nodes'];

    @Field(() => PageInfo, { description: 'Where this page lies in the list.' })
    pageInfo: Page<unknown>['pageInfo'];

    @Field(() => Int, { description: 'How many there are in all.' })
    totalCount: number;
  }
  return Connection;
}
