import android.content.Context;
import edgevit.android.Classification;
import edgevit.android.EdgevitException;
import edgevit.android.RanOn;
import edgevit.android.RepVitClassifier;
import java.io.File;
import java.io.PrintStream;
import java.util.List;

/**
 * Npu ASSETS STORAGE PICTURES: the first picture by a classifier that is free to choose, twice, and
 * by ones that are told "npu" and "cpu". A line each: what was asked for, what runs it, why not the NPU, then
 * index:logit of every class, the floats as their bits; or the status and the message.
 */
final class Npu {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, "UTF-8");
        Picture picture = Picture.read(arguments[2]).get(0);
        Context context = new Context(new File(arguments[0]), new File(arguments[1]));
        for (String asked : new String[] {null, "npu", "cpu"}) {
            String found;
            try (RepVitClassifier classifier = new RepVitClassifier(context, 1, "edgevit", asked)) {
                List<Classification> answer = classifier.classify(picture.direct(), picture.width,
                        picture.height, picture.width * 4, classifier.getLabels().size());
                found = line(classifier, answer);
                if (asked == null) {
                    answer = classifier.classify(picture.direct(), picture.width, picture.height,
                            picture.width * 4, classifier.getLabels().size());
                    out.println("again\t" + line(classifier, answer).replace('\n', ' '));
                }
            } catch (EdgevitException failure) {
                found = failure.getStatus() + "\t" + failure.getMessage();
            }
            out.println((asked == null ? "free" : asked) + "\t" + found.replace('\n', ' '));
        }
    }

    private static String line(RepVitClassifier classifier, List<Classification> answer) {
        RanOn ran = new RanOn(classifier.getAccelerator(), classifier.getWhyNotNpu());
        StringBuilder text = new StringBuilder(ran.getAccelerator() + "\t" + ran.getWhyNotNpu());
        for (Classification each : answer) {
            if (!each.getRanOn().equals(ran)) {
                throw new AssertionError(each.getRanOn() + " of an answer, " + ran);
            }
            text.append('\t').append(each.getIndex());
            text.append(':').append(Float.floatToRawIntBits(each.getLogit()));
        }
        return text.toString();
    }
}
