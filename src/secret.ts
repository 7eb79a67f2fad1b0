import { inspect } from 'node:util';

const MASK = '[secret]';

/**
 * A string that must not be printed: a token, a code, a key, a client secret.
 *
 * It shows itself as `[secret]` to `String()`, template literals, `JSON.stringify` and `util.inspect`; the value comes
 * out of `reveal()` alone, so every place that uses one can be found by that name.
 */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  /** The value itself. Call it where the value is sent or sealed, and do not keep what it returns. */
  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return MASK;
  }

  toJSON(): string {
    return MASK;
  }

  [inspect.custom](): string {
    return MASK;
  }
}
