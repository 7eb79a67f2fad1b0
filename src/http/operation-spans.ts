import { type DocumentNode, getOperationAST, type OperationDefinitionNode } from 'graphql';
import type { Plugin } from 'graphql-yoga';
import { areTraced, inSpan, type SpanFacts } from '../diagnostics.js';

/** Names are the caller's own; GraphQL leaves them letters and digits. Variables and the document's text are not told. */
export const factsOf = ({ operation, name }: OperationDefinitionNode): SpanFacts => ({
  operationType: operation,
  ...(name === undefined ? {} : { operationName: name.value.slice(0, 60) }),
});

interface Asked {
  document: DocumentNode;
  operationName?: string | null | undefined;
}

function factsOfAsked({ document, operationName }: Asked): SpanFacts {
  const operation = getOperationAST(document, operationName);
  return operation ? factsOf(operation) : {};
}

/** Spans of the operations that go through the engine's own machinery; a stream's ends when it has begun. */
export const operationSpans: Plugin = {
  onExecute: ({ executeFn, setExecuteFn }) => {
    if (!areTraced()) return;
    const execute = executeFn as (args: Asked) => unknown;
    setExecuteFn((args: Asked) =>
      inSpan(
        'operation',
        () => execute(args),
        () => factsOfAsked(args),
      ),
    );
  },
  onSubscribe: ({ subscribeFn, setSubscribeFn }) => {
    if (!areTraced()) return;
    const subscribe = subscribeFn as (args: Asked) => unknown;
    setSubscribeFn((args: Asked) =>
      inSpan(
        'operation',
        () => subscribe(args),
        () => factsOfAsked(args),
      ),
    );
  },
};
