/**
 * What one document may ask for. Depth, aliases and root fields are rules of validation; the cost
 * needs the variables (`first`) and is reckoned before execution. The same for HTTP and sockets.
 */
import {
  GraphQLError,
  Kind,
  getNamedType,
  isCompositeType,
  isListType,
  isNonNullType,
  isObjectType,
  type ASTVisitor,
  type DocumentNode,
  type FieldNode,
  type FragmentDefinitionNode,
  type GraphQLObjectType,
  type GraphQLOutputType,
  type GraphQLSchema,
  type OperationDefinitionNode,
  type SelectionSetNode,
  type ValidationContext,
  type ValidationRule,
} from 'graphql';
import { requestError } from './errors.ts';

export const limits = {
  /** Lexical tokens of a document. */
  tokens: 1000,
  /** Fields within fields; introspection has its own limit in graphql-js. */
  depth: 12,
  aliases: 30,
  /** Fields on Query or Mutation in one operation, fragments included. */
  rootFields: 20,
  /** See `costOf`. */
  cost: 5000,
} as const;

/** Items reckoned for a list without a `first`. */
const plainListItems = 5;
const defaultFirst = 50;
/** Each connection is a transaction and two queries of its own. */
const connectionCost = 5;
/** What a field costs beside 1 for each object that it makes. */
const heavyFields: Readonly<Record<string, number>> = {
  // A password is hashed with argon2.
  'Mutation.signIn': 500,
  'Mutation.signUp': 500,
  // A registry is asked.
  'Mutation.deploy': 200,
  // JetStream is read.
  'Query.logs': 200,
  'Query.logPage': 200,
  'Query.__schema': 500,
};

type Fragments = ReadonlyMap<string, FragmentDefinitionNode>;

function fragmentsOf(document: DocumentNode): Fragments {
  return new Map(
    document.definitions
      .filter((definition) => definition.kind === Kind.FRAGMENT_DEFINITION)
      .map((fragment) => [fragment.name.value, fragment]),
  );
}

/** Depth of the deepest field. Each fragment is looked at once, so that spreads within spreads cost nothing. */
function depthOf(
  set: SelectionSetNode | undefined,
  fragments: Fragments,
  known: Map<string, number>,
): number {
  let deepest = 0;
  for (const selection of set?.selections ?? []) {
    if (selection.kind === Kind.FIELD) {
      if (selection.name.value.startsWith('__')) continue;
      deepest = Math.max(deepest, 1 + depthOf(selection.selectionSet, fragments, known));
    } else if (selection.kind === Kind.INLINE_FRAGMENT) {
      deepest = Math.max(deepest, depthOf(selection.selectionSet, fragments, known));
    } else {
      const name = selection.name.value;
      if (!known.has(name)) {
        // Set first: a fragment that spreads itself ends here (and another rule reports it).
        known.set(name, 0);
        known.set(name, depthOf(fragments.get(name)?.selectionSet, fragments, known));
      }
      deepest = Math.max(deepest, known.get(name) ?? 0);
    }
  }
  return deepest;
}

function countRootFields(
  set: SelectionSetNode | undefined,
  fragments: Fragments,
  within: string[],
): number {
  let count = 0;
  for (const selection of set?.selections ?? []) {
    if (count > limits.rootFields) return count;
    if (selection.kind === Kind.FIELD) count += 1;
    else if (selection.kind === Kind.INLINE_FRAGMENT) {
      count += countRootFields(selection.selectionSet, fragments, within);
    } else if (!within.includes(selection.name.value)) {
      const name = selection.name.value;
      count += countRootFields(fragments.get(name)?.selectionSet, fragments, [...within, name]);
    }
  }
  return count;
}

function limitRule(context: ValidationContext): ASTVisitor {
  const fragments = fragmentsOf(context.getDocument());
  const refuse = (message: string, node: OperationDefinitionNode | FieldNode) =>
    context.reportError(
      new GraphQLError(message, { nodes: node, extensions: { code: 'GRAPHQL_VALIDATION_FAILED' } }),
    );
  let aliases = 0;
  return {
    Field(node) {
      if (node.alias) aliases += 1;
      if (aliases === limits.aliases + 1) refuse(`Use at most ${limits.aliases} aliases`, node);
    },
    OperationDefinition(node) {
      const depth = depthOf(node.selectionSet, fragments, new Map());
      if (depth > limits.depth) {
        refuse(`The operation is ${depth} fields deep; at most ${limits.depth} are allowed`, node);
      }
      if (countRootFields(node.selectionSet, fragments, []) > limits.rootFields) {
        refuse(`Ask for at most ${limits.rootFields} fields of ${node.operation} at once`, node);
      }
    },
  };
}

/** The rules beside GraphQL's own. */
export const limitRules: readonly ValidationRule[] = [limitRule];

type Variables = Readonly<Record<string, unknown>>;

/**
 * An upper estimate of the objects that an operation makes: 1 for each object field, multiplied by
 * `first` for what is below a connection (50 when absent) and by 5 below another list, plus extras
 * for fields that are heavy by themselves. Leaf fields cost nothing.
 */
export function costOf(
  schema: GraphQLSchema,
  document: DocumentNode,
  operation: OperationDefinitionNode,
  variables: Variables,
): number {
  const fragments = fragmentsOf(document);
  const known = new Map<string, number>();

  const ofSet = (set: SelectionSetNode, parent: GraphQLObjectType): number => {
    let cost = 0;
    for (const selection of set.selections) {
      if (selection.kind === Kind.FIELD) cost += ofField(selection, parent);
      else if (selection.kind === Kind.INLINE_FRAGMENT)
        cost += ofSet(selection.selectionSet, parent);
      else {
        const name = selection.name.value;
        const fragment = fragments.get(name);
        const type = schema.getType(fragment?.typeCondition.name.value ?? '');
        if (!known.has(name)) {
          known.set(name, fragment && isObjectType(type) ? ofSet(fragment.selectionSet, type) : 0);
        }
        cost += known.get(name) ?? 0;
      }
    }
    return cost;
  };

  const ofField = (field: FieldNode, parent: GraphQLObjectType): number => {
    const name = field.name.value;
    const heavy = heavyFields[`${parent.name}.${name}`] ?? 0;
    const definition = parent.getFields()[name];
    const type = definition && getNamedType(definition.type);
    if (!definition || !isCompositeType(type) || !field.selectionSet) return heavy;
    const below = isObjectType(type) ? ofSet(field.selectionSet, type) : 0;
    // A connection multiplies here, once; its `nodes` and `edges` are then plain steps down.
    if (type.name.endsWith('Connection')) {
      return heavy + connectionCost + firstOf(field, variables) * below;
    }
    const inConnection = parent.name.endsWith('Connection');
    const items = !inConnection && isList(definition.type) ? plainListItems : 1;
    return heavy + items * (1 + below);
  };

  const root = schema.getRootType(operation.operation);
  return root ? ofSet(operation.selectionSet, root) : 0;
}

function isList(type: GraphQLOutputType): boolean {
  return isListType(isNonNullType(type) ? type.ofType : type);
}

function firstOf(field: FieldNode, variables: Variables): number {
  const value = field.arguments?.find((argument) => argument.name.value === 'first')?.value;
  if (value?.kind === Kind.INT) return Math.max(Number(value.value), 1);
  if (value?.kind === Kind.VARIABLE) {
    const given = variables[value.name.value];
    if (typeof given === 'number') return Math.max(given, 1);
  }
  return defaultFirst;
}

/** @throws GraphQLError when the operation costs more than the limit. */
export function checkCost(
  schema: GraphQLSchema,
  document: DocumentNode,
  operation: OperationDefinitionNode,
  variables: Variables,
): void {
  const cost = costOf(schema, document, operation, variables);
  if (cost <= limits.cost) return;
  throw requestError(
    'GRAPHQL_VALIDATION_FAILED',
    `The operation could make ${cost} objects; at most ${limits.cost} are allowed. Ask for fewer with \`first\`, or for fewer lists within lists`,
  );
}
