import { readFile } from 'node:fs/promises';

/** The fenced blocks of one language in a page of `docs/`, in their order. */
export async function snippetsOf(page: string, language: string): Promise<string[]> {
  const text = await readFile(new URL(`../../docs/${page}`, import.meta.url), 'utf8');
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'))].map(([, code = '']) => code);
}
