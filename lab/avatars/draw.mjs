// Portraits that nobody here drew: six styles of DiceBear, three seeds each, as SVG. Judges only: never learned from (see ../DATA.md).
//   npm i @dicebear/core@9.4.3 @dicebear/{adventurer,big-smile,lorelei,micah,open-peeps,personas}@9.4.3 ; node draw.mjs FOLDER
import fs from 'node:fs';
import { createAvatar } from '@dicebear/core';

const folder = process.argv[2] ?? 'avatars';
const styles = ['adventurer', 'big-smile', 'lorelei', 'micah', 'open-peeps', 'personas'];
const people = { Ada: 'b6e3f4', Ben: 'ffdfbf', Cleo: 'd1d4f9' };
fs.mkdirSync(folder, { recursive: true });
for (const name of styles) {
  const style = await import(`@dicebear/${name}`);
  for (const [seed, colour] of Object.entries(people)) {
    const svg = createAvatar(style, { seed, size: 512, backgroundColor: [colour] }).toString();
    fs.writeFileSync(`${folder}/${name}-${seed}.svg`, svg);
  }
}
