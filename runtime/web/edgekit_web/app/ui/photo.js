/** The picture that questions are about: taken or chosen, shown, and let go.  It stays for the next adapter. */

/** @type {(id: string) => any} */
const at = (id) => document.getElementById(id);
const SMALL = 96; // pixels of the picture that the history keeps

export class Photo {
  constructor() {
    this.file = undefined;
    this.address = "";
    for (const id of ["take", "pick"]) {
      at(id).addEventListener("change", () => {
        if (at(id).files.length) this.show(at(id).files[0]);
        at(id).value = "";
      });
    }
    at("drop-photo").addEventListener("click", () => this.show(undefined));
  }

  /** @param {File | undefined} file */
  show(file) {
    this.file = file;
    this.address = file ? URL.createObjectURL(file) : ""; // earlier ones stand in the answers
    at("photo-shown").src = this.address;
    for (const id of ["photo-shown", "drop-photo"]) at(id).hidden = !file;
    for (const way of at("photo").querySelectorAll("label, input")) way.hidden = Boolean(file);
  }

  /** As a small data: URL.  @returns {Promise<string | undefined>} */
  async small() {
    if (!this.file) return undefined;
    const bitmap = await createImageBitmap(this.file, { resizeWidth: SMALL });
    const canvas = document.createElement("canvas");
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    return canvas.toDataURL("image/jpeg", 0.7);
  }
}
