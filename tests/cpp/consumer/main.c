/* Classifies a picture of its own making: main ARTIFACT. Prints the library's version, the back-end
 * and the best three classes. */
#include <edgevit/edgevit.h>

#include <stdio.h>

int main(int argc, char** argv) {
    static uint8_t pixels[48 * 64 * 4];
    edgevit_session* session = NULL;
    edgevit_result best[3];
    edgevit_options options;
    edgevit_error error;
    edgevit_image image;
    size_t count = 3;
    size_t i;

    for (i = 0; i < sizeof pixels; ++i) {
        pixels[i] = (uint8_t)(i * 7);
    }
    edgevit_image_init(&image);
    image.planes[0].data = pixels;
    image.planes[0].stride_bytes = 64 * 4;
    image.width = 64;
    image.height = 48;
    image.format = EDGEVIT_RGBA8888;

    edgevit_options_init(&options);
    if (edgevit_open(argc > 1 ? argv[1] : NULL, &options, &session, &error) != EDGEVIT_OK ||
        edgevit_classify(session, &image, best, &count, &error) != EDGEVIT_OK) {
        fprintf(stderr, "%s: %s\n", edgevit_status_name(error.code), error.message);
        return error.code;
    }
    printf("edgevit %s %s\n", edgevit_version(), edgevit_backend(session));
    for (i = 0; i < count; ++i) {
        printf("%d %s %.2f\n", (int)best[i].class_index, best[i].label, (double)best[i].logit);
    }
    return edgevit_close(session, &error);
}
