import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { missingScopes } from '../src/domain/scope.js';
import { CATALOGUE, describedScope, findScope } from '../src/zoom-scopes/catalogue.js';
import { DESCRIPTIONS } from '../src/zoom-scopes/descriptions.js';
import { parseScopeName, vocabularyOf } from '../src/zoom-scopes/grammar.js';
import { nearScopeNames } from '../src/zoom-scopes/near-miss.js';

const granular = CATALOGUE.filter(({ vocabulary }) => vocabulary === 'GRANULAR');
const classic = CATALOGUE.filter(({ vocabulary }) => vocabulary === 'CLASSIC');
const covering = classic.filter(({ covers }) => covers.length > 0);
const tellable = (names: readonly string[]) => names.filter((name) => !name.includes(' '));

describe('the grammar', () => {
  const part = fc.stringMatching(/^[a-z0-9_]{1,20}$/).filter((text) => text !== 'admin' && text !== 'master');
  const level = fc.constantFrom(['USER', null] as const, ['ADMIN', 'admin'] as const, ['MASTER', 'master'] as const);
  const action = fc.constantFrom('read', 'write', 'update', 'delete', 'patch');

  test('a granular name is taken apart into what it was put together from', () => {
    fc.assert(
      fc.property(part, action, part, level, (resource, verb, claim, [expected, suffix]) => {
        const base = `${resource}:${verb}:${claim}`;
        const parsed = parseScopeName(suffix === null ? base : `${base}:${suffix}`);
        expect(parsed).toEqual({ resource, action: verb, claim, level: expected, base });
        expect(vocabularyOf(parsed)).toBe('GRANULAR');
      }),
    );
  });

  test('a classic name has the same level wherever in it the level stands', () => {
    fc.assert(
      fc.property(part, fc.array(part, { maxLength: 2 }), level, fc.nat(), (resource, rest, [expected, word], at) => {
        const parts = word === null ? rest : rest.toSpliced(at % (rest.length + 1), 0, word);
        const parsed = parseScopeName([resource, ...parts].join(':'));
        expect(parsed).toMatchObject({ resource, level: expected, base: [resource, ...rest].join(':') });
      }),
    );
  });

  test('every text has an answer: what it names is shown, with a sentence, under its own name', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.string(), fc.constantFrom('', ':', '__proto__', 'constructor:toString', 'admin')),
        (text) => {
          expect(describedScope(text)).toMatchObject({ name: text, description: expect.stringMatching(/\.$/) });
        },
      ),
    );
  });

  test.each([
    ['account:master', 'account', 'MASTER', 'CLASSIC'],
    ['user_zak:read', 'user_zak', 'USER', 'CLASSIC'],
    ['chat_channel:read:member', 'chat_channel', 'USER', 'CLASSIC'],
    ['meeting_token:read:admin:local_recording', 'meeting_token', 'ADMIN', 'CLASSIC'],
    ['user_profile', 'user_profile', 'USER', 'CLASSIC'],
    ['scim2:admin', 'scim2', 'ADMIN', 'GRANULAR'],
    ['contact_center:udpate:region:admin', 'contact_center', 'ADMIN', 'GRANULAR'],
    ['group:read:administrator:master', 'group', 'MASTER', 'GRANULAR'],
  ])('%s is of %s, at level %s, and %s', (name, resource, level_, vocabulary) => {
    expect(findScope(name)).toMatchObject({ name, resource, level: level_, vocabulary });
  });
});

describe('the catalogue', () => {
  test('has every scope of both vocabularies once, at its level', () => {
    const count = (scopes: typeof granular, level: string) => scopes.filter((scope) => scope.level === level).length;
    expect(['USER', 'ADMIN', 'MASTER'].map((level) => count(granular, level))).toEqual([566, 1300, 635]);
    expect(classic.length).toBe(436);
    expect(new Set(CATALOGUE.map(({ id }) => id)).size).toBe(2501 + 436);
  });

  test('a classic scope covers granular ones of its own level, and a granular one covers none', () => {
    for (const { level, covers } of classic) {
      for (const name of covers) expect(findScope(name)).toMatchObject({ vocabulary: 'GRANULAR', level });
    }
    expect(granular.filter(({ covers }) => covers.length > 0)).toEqual([]);
    expect(findScope('meeting:read')?.covers).toHaveLength(18);
    expect(findScope('meeting:write')?.covers).toHaveLength(25);
    expect(findScope('webinar:read')?.covers).toHaveLength(19);
  });

  test('scopes that most products use have a sentence of their own; the others one composed from their names', () => {
    const common = ['account', 'cloud_recording', 'marketplace', 'meeting', 'report', 'user', 'webinar'];
    const composed = granular
      .filter(({ resource }) => common.includes(resource))
      .filter(({ name }) => !(parseScopeName(name).base in DESCRIPTIONS));
    expect(composed).toEqual([]);
    for (const base of Object.keys(DESCRIPTIONS)) {
      const names = [base, `${base}:admin`, `${base}:master`, base.replace(':read:', ':read:admin:')];
      expect([base, names.some((name) => findScope(name) !== undefined)]).toEqual([base, true]);
    }
    expect(findScope('phone:read:list_call_logs:admin')?.description).toBe(
      'List call logs (phone). For the whole account.',
    );
    for (const { description } of CATALOGUE) expect(description).toMatch(/^[A-Z][^_]+\.$/);
  });
});

describe('comparing', () => {
  const anyNames = fc.subarray(
    CATALOGUE.map(({ name }) => name),
    { maxLength: 30 },
  );

  test('what was granted by name is never missing, and what is missing is named in order', () => {
    fc.assert(
      fc.property(anyNames, anyNames, (required, granted) => {
        const missing = missingScopes(required, granted);
        expect(missing).toEqual(required.filter((name) => missing.includes(name)));
        expect(missing.filter((name) => granted.includes(name))).toEqual([]);
        expect(missingScopes(granted, granted)).toEqual([]);
        expect(missingScopes(required, [])).toEqual(required);
      }),
    );
  });

  test('granting more never makes more missing', () => {
    fc.assert(
      fc.property(anyNames, anyNames, anyNames, (required, granted, more) => {
        const before = missingScopes(required, granted);
        const after = missingScopes(required, [...granted, ...more]);
        expect(after.filter((name) => !before.includes(name))).toEqual([]);
      }),
    );
  });

  test('a classic scope grants each granular one that it covers, and no other', () => {
    fc.assert(
      fc.property(fc.constantFrom(...covering), anyNames, ({ name, covers }, others) => {
        expect(missingScopes(tellable(covers), [name])).toEqual([]);
        const beyond = others.filter((other) => other !== name && !covers.includes(other));
        expect(missingScopes(beyond, [name])).toEqual(beyond);
      }),
    );
  });

  test('all that a classic scope covers grant it; without one of them it is missing', () => {
    fc.assert(
      fc.property(fc.constantFrom(...covering), fc.nat(), ({ name, covers }, at) => {
        // A scope that has the same name in both vocabularies grants itself.
        const parts = tellable(covers).filter((part) => part !== name);
        fc.pre(parts.length > 0);
        expect(missingScopes([name], parts)).toEqual([]);
        expect(missingScopes([name], parts.toSpliced(at % parts.length, 1))).toEqual([name]);
      }),
    );
  });

  test('a level grants no other level', () => {
    fc.assert(
      fc.property(fc.constantFrom(...granular), fc.constantFrom(...granular), (one, other) => {
        fc.pre(one.name !== other.name);
        expect(missingScopes([one.name], [other.name])).toEqual([one.name]);
      }),
    );
    expect(missingScopes(['user:read:user'], ['user:read:user:admin'])).toEqual(['user:read:user']);
    expect(missingScopes(['user:read:user:admin'], ['user:read:user:master'])).toEqual(['user:read:user:admin']);
  });

  test('a scope that the catalogue does not know is granted by its name alone', () => {
    expect(missingScopes(['meeting:read:dreams'], ['meeting:read', 'meeting:read:dreams'])).toEqual([]);
    expect(missingScopes(['meeting:read:dreams'], ['meeting:read'])).toEqual(['meeting:read:dreams']);
  });
});

describe('near misses', () => {
  test('one wrong letter is put right', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...granular.filter(({ level, name }) => level === 'USER' && name.length >= 15)),
        fc.nat(),
        ({ name }, at) => {
          const letter = at % name.length;
          const wrong = `${name.slice(0, letter)}q${name.slice(letter + 1)}`;
          fc.pre(name[letter] !== ':' && findScope(wrong) === undefined);
          const [best, ...more] = nearScopeNames(wrong, ['USER']);
          expect([best, ...more]).toContain(name);
          expect(more.length).toBeLessThan(5);
        },
      ),
      { numRuns: 50 },
    );
  });

  test('whatever is suggested exists', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 60 }), (text) => {
        for (const name of nearScopeNames(text, ['USER'])) expect(findScope(name)?.name).toBe(name);
      }),
      { numRuns: 30 },
    );
  });
});
