package kfcn

import android.content.res.AssetManager
import android.graphics.Bitmap
import org.json.JSONObject
import org.tensorflow.lite.Interpreter
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/**
 * One `.tflite` file of a bundle: a picture in, a class for each pixel out.
 *
 * Not safe for several threads at once.
 *
 * @param assets the app's assets, with the bundle in [folder].
 * @param mode which file: "int8", "float32", ...
 */
class Segmenter(
    assets: AssetManager,
    mode: String = "int8",
    folder: String = "bundle",
    threads: Int = 4,
) : AutoCloseable {
    val height: Int
    val width: Int
    val classes: List<String>

    /** RGB of each class, 0xRRGGBB. */
    val palette: IntArray

    private val interpreter: Interpreter
    private val input: ByteBuffer
    private val output: ByteBuffer

    init {
        val info = JSONObject(assets.open("$folder/bundle.json").use { it.reader().readText() })
        height = info.getJSONArray("size").getInt(0)
        width = info.getJSONArray("size").getInt(1)
        classes = info.getJSONArray("classes").let { all -> List(all.length(), all::getString) }
        palette = info.getJSONArray("palette").let { all ->
            IntArray(all.length()) { i ->
                val rgb = all.getJSONArray(i)
                (rgb.getInt(0) shl 16) or (rgb.getInt(1) shl 8) or rgb.getInt(2)
            }
        }
        val models = info.getJSONArray("models").let { all -> List(all.length(), all::getJSONObject) }
        val entry = models.firstOrNull { it.getString("mode") == mode }
            ?: throw IllegalArgumentException("the bundle has no $mode file")
        val model = assets.openFd("$folder/${entry.getString("file")}").use { asset ->
            FileInputStream(asset.fileDescriptor).channel.use { channel ->
                channel.map(
                    FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.declaredLength,
                )
            }
        }
        interpreter = Interpreter(model, Interpreter.Options().setNumThreads(threads))
        input = ByteBuffer.allocateDirect(height * width * 3)
        output = ByteBuffer.allocateDirect(height * width)
    }

    /**
     * @param picture of any size; it is scaled to the net's.
     * @return [height] * [width] classes, row by row.
     */
    fun run(picture: Bitmap): ByteArray {
        val scaled = Bitmap.createScaledBitmap(picture, width, height, true)
        val pixels = IntArray(width * height)
        scaled.getPixels(pixels, 0, width, 0, 0, width, height)
        input.rewind()
        for (pixel in pixels) {
            input.put((pixel shr 16).toByte()).put((pixel shr 8).toByte()).put(pixel.toByte())
        }
        input.rewind()
        output.rewind()
        interpreter.runSignature(
            mapOf<String, Any>("image" to input), mapOf<String, Any>("labels" to output), "segment",
        )
        output.rewind()
        return ByteArray(height * width).also(output::get)
    }

    override fun close() = interpreter.close()
}
