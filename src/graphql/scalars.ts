import { GraphQLError } from 'graphql';
import { Secret } from '../secret.js';

const RFC_3339 = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$/i;

const refuse = (message: string) => new GraphQLError(message, { extensions: { code: 'BAD_USER_INPUT' } });

export const dateTime = {
  description: 'A moment in time as RFC 3339 writes it. Answers are in UTC with milliseconds.',
  specifiedByURL: 'https://scalars.graphql.org/andimarek/date-time',
  serialize: (value: unknown): string => {
    if (value instanceof Date) return value.toISOString();
    throw new TypeError('A DateTime was resolved to something else.');
  },
  parseValue: (value: unknown): Date => {
    const date = typeof value === 'string' && RFC_3339.test(value) ? new Date(value) : null;
    if (date === null || Number.isNaN(date.getTime())) throw refuse('A DateTime is written as RFC 3339 has it.');
    return date;
  },
};

export const url = {
  description: 'An absolute web address, as the WHATWG URL standard reads it.',
  specifiedByURL: 'https://url.spec.whatwg.org/',
  serialize: (value: unknown): string => {
    if (typeof value === 'string') return value;
    throw new TypeError('A URL was resolved to something else.');
  },
  // Which addresses are allowed where is for the field to decide, and to answer as a typed error.
  parseValue: (value: unknown): string => {
    if (typeof value === 'string') return value;
    throw refuse('A URL is a string.');
  },
};

export const secret = {
  description:
    'A string that only a server key may read. Serialising one for any other principal is an error, never a value.',
  serialize: (value: unknown): string => {
    // Only what the domain has deliberately handed out as a secret gets through, never a bare string.
    if (value instanceof Secret) return value.reveal();
    throw new TypeError('A Secret was resolved to something else.');
  },
  parseValue: (): never => {
    throw refuse('A Secret cannot be given as input.');
  },
};
